"""Others' formats and servers: read what was said anywhere, write it for other tools, ask a served model.

Every reader gives `workbench.transcripts.transcript.Transcript`, which ``wb.replay(model, transcript)`` takes.
"""
