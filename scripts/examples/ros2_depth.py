"""A ROS 2 node: rectified left and right images and their camera_info in, depth in metres out.

python scripts/examples/ros2_depth.py
python scripts/examples/ros2_depth.py --ros-args -p checkpoint:=rvc_pretrain -p scale:=0.5 -r left/image:=/zed/left/image_rect

Topics: left/image and right/image (sensor_msgs/Image: rgb8, bgr8, rgba8, bgra8 or mono8), right/camera_info; depth (32FC1,
metres, infinite where nothing is found, REP 118). What knows ROS is `main`; `Converter` works on anything with the fields of
the messages, so it is tested without ROS.
"""

from typing import Any

import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration

# Encoding -> channels, and where red, green and blue lie.
ENCODINGS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}


def image_of(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image. InputError: another encoding, or fewer bytes than it says."""
    if message.encoding not in ENCODINGS:
        raise InputError(f"encoding {message.encoding!r}, expected one of {', '.join(ENCODINGS)}")
    channels, order = ENCODINGS[message.encoding]
    data = np.frombuffer(bytes(message.data), np.uint8)
    if message.step < message.width * channels or len(data) < message.step * message.height:
        raise InputError(f"an image of {message.width}x{message.height} with {len(data)} bytes and rows of {message.step}")
    rows = data[: message.step * message.height].reshape(message.height, message.step)[:, : message.width * channels]
    return np.ascontiguousarray(rows.reshape(message.height, message.width, channels)[..., order])


def camera_of(right: Any) -> Calibration:
    """Of the right camera's sensor_msgs/CameraInfo, whose projection matrix holds the baseline."""
    p = np.array(right.p, np.float64).reshape(3, 4)
    return Calibration(p[0, 0], p[1, 1], p[0, 2], p[1, 2], -p[0, 3] / p[0, 0], 0.0, (right.width, right.height))


class Converter:
    """Two images and the right camera_info to a depth image: (left, right, info, message to fill) -> that message."""

    def __init__(self, predictor: Any, scale: float = 1.0) -> None:
        self.predictor, self.scale = predictor, scale

    def __call__(self, left: Any, right: Any, info: Any, depth: Any) -> Any:
        images = image_of(left), image_of(right)
        height, width = images[0].shape[:2]
        camera = camera_of(info).fitted(width, height)
        metres = camera.depth(self.predictor(*images, scale=self.scale).disparity)
        depth.header, depth.encoding, depth.is_bigendian = left.header, "32FC1", 0
        depth.height, depth.width, depth.step = height, width, 4 * width
        depth.data = np.ascontiguousarray(metres, "<f4").tobytes()
        return depth


def main() -> None:
    import message_filters
    import rclpy
    from sensor_msgs.msg import CameraInfo, Image

    from bridgedepth_jax import Predictor

    rclpy.init()
    node = rclpy.create_node("bridgedepth")
    checkpoint = node.declare_parameter("checkpoint", "nano").value
    scale = node.declare_parameter("scale", 1.0).value
    converter = Converter(Predictor.load(checkpoint, check_order=False), scale)
    publisher = node.create_publisher(Image, "depth", 1)

    def received(left: Image, right: Image, info: CameraInfo) -> None:
        try:
            publisher.publish(converter(left, right, info, Image()))
        except InputError as error:
            node.get_logger().error(str(error), throttle_duration_sec=5.0)

    topics = (("left/image", Image), ("right/image", Image), ("right/camera_info", CameraInfo))
    subscribers = [message_filters.Subscriber(node, kind, name) for name, kind in topics]
    message_filters.ApproximateTimeSynchronizer(subscribers, queue_size=2, slop=0.02).registerCallback(received)
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()


if __name__ == "__main__":
    main()
