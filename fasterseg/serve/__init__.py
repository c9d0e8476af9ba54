"""Looking at what runs, from a browser: extra `[serve]` (Starlette, uvicorn)."""
