"""An RTSP server that is pushed to, GStreamer's; runs in the Python that has its bindings.

    python3 tests/slow/rtsp_recorder.py PORT FILE [USER PASSWORD]

What is pushed to `/front` is appended to FILE as H.264, ready to be decoded. With a user and a
password it asks for them, by digest. It prints `listening` and then serves for ever.

Debian: gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good, gstreamer1.0-plugins-bad,
python3-gi.
"""

from __future__ import annotations

import sys

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")

from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402

PIPELINE = (
    "( rtph264depay name=depay0 ! h264parse config-interval=-1 "
    "! video/x-h264,stream-format=byte-stream "
    "! filesink append=true buffer-mode=2 location={file} )"
)


def serve(port: str, file: str, user: str = "", password: str = "") -> None:
    """Record what comes, for ever."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(file=file))
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_latency(0)
    if user:
        protect(server, factory, user, password)
    server.get_mount_points().add_factory("/front", factory)
    server.attach(None)
    print("listening", flush=True)
    GLib.MainLoop().run()


def protect(server: object, factory: object, user: str, password: str) -> None:
    """Let in who has the password, and nobody else."""
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "sender")
    auth.add_digest(user, password, token)
    server.set_auth(auth)  # type: ignore[attr-defined]
    rights = Gst.Structure.new_empty("sender")
    for right in ("media.factory.access", "media.factory.construct"):
        rights.set_value(right, True)
    factory.add_role_from_structure(rights)  # type: ignore[attr-defined]


if __name__ == "__main__":
    serve(*sys.argv[1:])
