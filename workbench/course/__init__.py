"""What the lessons need beside the views: predictions that are kept, exercises that are checked."""
