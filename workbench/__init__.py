"""MoE Workbench: see what a mixture-of-experts language model routes, attends to and thinks, token by token."""
