"""An RTSP server in a process of its own, GStreamer's; runs in the Python that has its bindings.

    python3 tests/slow/rtsp_server.py PORT HEIGHTxWIDTH

Debian: gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good, python3-gi.
"""

from __future__ import annotations

import sys

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")

from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402

PIPELINE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width={width},"
    "height={height},framerate=25/1 ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
)


def serve(port: str, height: str, width: str) -> None:
    """Serve a moving ball at `/live`, for ever."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(height=height, width=width))
    factory.set_shared(True)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(sys.argv[1], *sys.argv[2].split("x"))
