"""The first stage in closed form: from points of pairs to one scale for a video (spec `video.md` section 2).

E directed pairs (i, j); P, Q points of i and j, both in camera i, C, D their confidences; T frames, H W pixels, N points.
Cameras: X right, Y down, Z forward; poses are camera to world. Everything is float64 on the host; the unit of length is the
network's until `fuse` fixes the mean scale.
"""

import itertools
from collections import deque
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import scipy.linalg
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csgraph

from bridgedepth_jax.errors import InputError

Maps = Any  # a sequence of arrays; indexing reads one, so that they may lie on a disk
NEAREST = 1e-8  # pixels, smallest distance that a weight of the focal length is divided by
FOCAL_STEPS = 10
MEAN_SCALE = 0.5  # geometric mean of the pairs' scales after fusion
HIDDEN_DEPTH = 1.0  # what a depth that is not positive becomes, as in the original
PNP_CONFIDENCE, PNP_STEPS, PNP_PIXELS, PNP_POINTS = 3.0, 10, 5.0, 4


class Similarity(NamedTuple):
    """x -> scale R x + t."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def apply(self, points: Float[np.ndarray, "*S 3"]) -> Float[np.ndarray, "*S 3"]:
        return self.scale * (points @ self.rotation.T) + self.translation

    @property
    def pose(self) -> Float[np.ndarray, "4 4"]:
        """The rigid part alone."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation, self.translation
        return pose


class Tree(NamedTuple):
    """A maximum spanning tree."""

    scores: Float[np.ndarray, "E"]
    edges: list[int]  # numbers of its pairs, strongest first


class Fused(NamedTuple):
    """A video in one world."""

    depth: Float[np.ndarray, "T H W"]
    pose: Float[np.ndarray, "T 4 4"]
    focal: Float[np.ndarray, "T"]  # pixels
    points: Float[np.ndarray, "T H W 3"]  # in the world
    scores: Float[np.ndarray, "E"]
    tree: list[int]  # numbers of pairs, strongest first
    order: list[int]  # the same as they were used
    from_tree: list[int]  # frames whose pose came with the tree
    edge_scales: Float[np.ndarray, "E"]  # of each pair's points in the world, before `scale_factor`
    scale_factor: float
    hidden: int  # pixels whose depth was not positive and became `HIDDEN_DEPTH`


def pairs_of(frames: int, reach: int = 2) -> Int[np.ndarray, "E 2"]:
    """All (i, j), i < j <= i + reach, then each reversed; of one frame the pair with itself. ValueError: no frame or reach."""
    if frames < 1 or reach < 1:
        raise ValueError(f"{frames} frames and a reach of {reach}, expected at least 1 of both")
    if frames == 1:
        return np.zeros((1, 2), np.int64)
    forward = [(i, j) for i in range(frames) for j in range(i + 1, min(i + reach, frames - 1) + 1)]
    return np.array(forward + [(j, i) for i, j in forward], np.int64)


def focal_steps(points: Float[np.ndarray, "H W 3"]) -> list[float]:
    """Weiszfeld's iterations for the focal length in pixels, the principal point at the centre: first guess and each step."""
    height, width, _ = points.shape
    points = np.asarray(points, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ray = points[..., :2] / points[..., 2:]
    ray = np.where(np.isfinite(ray), ray, 0)
    x, y = np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2)
    pixel = np.stack([x, y], -1)
    along, square = np.sum(ray * pixel, -1), np.sum(ray * ray, -1)
    found = [float(np.mean(along) / np.mean(square))]
    for _ in range(FOCAL_STEPS):
        weight = 1 / np.maximum(np.linalg.norm(pixel - found[-1] * ray, axis=-1), NEAREST)
        found.append(float(np.mean(weight * along) / np.mean(weight * square)))
    return found


def focal_of(points: Float[np.ndarray, "H W 3"]) -> float:
    """Focal length in pixels of points in their own camera."""
    return focal_steps(points)[-1]


def register(x: Float[np.ndarray, "*S 3"], y: Float[np.ndarray, "*S 3"], weight: Float[np.ndarray, "*S"]) -> Similarity:
    """The similarity that takes `x` nearest to `y` in weighted least squares (Umeyama, without reflections)."""
    x, y = (np.asarray(points, np.float64).reshape(-1, 3) for points in (x, y))
    w = np.asarray(weight, np.float64).reshape(-1)
    total = w.sum()
    mean_x, mean_y = w @ x / total, w @ y / total
    x, y = x - mean_x, y - mean_y
    u, s, vt = scipy.linalg.svd((w[:, None] * y).T @ x)
    sign = np.array([1, 1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * sign) @ vt
    scale = float(sign @ s / (w @ np.sum(x * x, -1)))
    return Similarity(scale, rotation, mean_y - scale * (rotation @ mean_x))


def spanning_tree(edges: Int[np.ndarray, "E 2"], scores: Float[np.ndarray, "E"]) -> list[int]:
    """Numbers of the pairs of a maximum spanning tree, strongest first; of both directions the better one, as it is.

    InputError: frames that no pair connects.
    """
    frames = int(edges.max()) + 1
    best: dict[tuple[int, int], int] = {}
    for number, (i, j) in enumerate(edges.tolist()):
        key = (min(i, j), max(i, j))
        if i != j and (key not in best or scores[number] > scores[best[key]]):
            best[key] = number
    rows, columns = np.array(list(best), np.int64).reshape(-1, 2).T
    weights = np.array([-scores[number] for number in best.values()])
    graph = coo_array((weights, (rows, columns)), (frames, frames)).tocsr()
    parts, labels = csgraph.connected_components(graph, directed=False)
    if parts > 1:
        apart = np.flatnonzero(labels != labels[0])[0]
        raise InputError(f"frames 0 and {apart} are connected by no pair, expected every frame to be reached")
    found = csgraph.minimum_spanning_tree(graph).tocoo()
    numbers = [best[min(i, j), max(i, j)] for i, j in zip(found.row.tolist(), found.col.tolist(), strict=True)]
    return sorted(sorted(numbers), key=lambda number: -scores[number])


def scores_of(conf_i: Maps, conf_j: Maps) -> Float[np.ndarray, "E"]:
    """Mean confidence of the first frame times that of the second, of each pair. InputError: values that are not positive."""
    scores = []
    for number in range(len(conf_i)):
        pair = [np.mean(maps[number], dtype=np.float64) for maps in (conf_i, conf_j)]
        if not all(np.isfinite(mean) and mean > 0 for mean in pair):
            raise InputError(f"pair {number}: mean confidences {pair[0]:g} and {pair[1]:g}, expected positive numbers")
        scores.append(pair[0] * pair[1])
    return np.array(scores)


def fuse(
    edges: Int[np.ndarray, "E 2"],
    points_i: Maps,
    points_j: Maps,
    conf_i: Maps,
    conf_j: Maps,
    *,
    pose: Literal["procrustes", "pnp"] = "procrustes",
    scores: Float[np.ndarray, "E"] | None = None,
) -> Fused:
    """All frames in the world of the strongest pair's first frame (section 2.4 to 2.6).

    points_i, points_j: (E, H, W, 3) in camera i; conf_i, conf_j: (E, H, W). `pose` is how frames that the tree leaves without
    a pose get one. `scores` are those of `scores_of`, where they are known. InputError: frames that no pair connects,
    confidences that are not positive.
    """
    edges = np.asarray(edges)
    frames = int(edges.max()) + 1
    scores = scores_of(conf_i, conf_j) if scores is None else scores
    array = lambda maps, number: np.asarray(maps[number], np.float64)
    world: dict[int, np.ndarray] = {}
    poses: dict[int, np.ndarray] = {}
    focals: dict[int, float] = {}
    tree = spanning_tree(edges, scores) if frames > 1 else [0]
    order: list[int] = []
    waiting = deque(tree)
    while waiting:
        number = waiting.popleft()
        i, j = edges[number].tolist()
        if not order:
            world[i], world[j] = array(points_i, number), array(points_j, number)
            if frames == 1:
                world[i] = array(points_i, number)
            poses[i], focals[i] = np.eye(4), focal_of(world[i])
            order.append(number)
            continue
        # Of the pair that was used last, not of this one: a slip of the original that its numbers depend on.
        if i not in focals:
            focals[i] = focal_of(array(points_i, order[-1]))
        if i in world:
            found = register(array(points_i, number), world[i], array(conf_i, number))
            world[j] = found.apply(array(points_j, number))
        elif j in world:
            found = register(array(points_j, number), world[j], array(conf_j, number))
            world[i] = found.apply(array(points_i, number))
        else:
            waiting.append(number)
            continue
        order.append(number)
        poses.setdefault(i, found.pose)
    from_tree = sorted(poses)
    ranked = sorted(range(len(edges)), key=lambda number: -scores[number])
    for number in ranked:
        i = int(edges[number, 0])
        if i not in focals:
            focals[i] = focal_of(array(points_i, number))
    if pose == "pnp" and len(poses) < frames:
        best = best_confidence(edges, conf_i, conf_j)
        for k in range(frames):
            if k not in poses:
                poses[k] = pnp(world[k], best[k], focals[k])
    for number in ranked:
        i = int(edges[number, 0])
        if i not in poses:
            poses[i] = register(array(points_i, number), world[i], array(conf_i, number)).pose
    scales = np.array([register(array(points_i, e), world[int(i)], array(conf_i, e)).scale for e, (i, _) in enumerate(edges)])
    factor = float(np.exp(np.log(MEAN_SCALE) - np.mean(np.log(scales))))
    points = np.stack([world[k] for k in range(frames)]) * factor
    pose_of = np.stack([poses[k] for k in range(frames)])
    pose_of[:, :3, 3] *= factor
    # Z in the camera: the third row of the inverse rotation.
    depth = np.einsum("tc,thwc->thw", pose_of[:, :3, 2], points - pose_of[:, None, None, :3, 3])
    hidden = depth <= 0
    return Fused(
        depth=np.where(hidden, HIDDEN_DEPTH, depth),
        pose=pose_of,
        focal=np.array([focals[k] for k in range(frames)]),
        points=points,
        scores=scores,
        tree=tree,
        order=order,
        from_tree=from_tree,
        edge_scales=scales,
        scale_factor=factor,
        hidden=int(hidden.sum()),
    )


def best_confidence(edges: Int[np.ndarray, "E 2"], conf_i: Maps, conf_j: Maps) -> Float[np.ndarray, "T H W"]:
    """Of each pixel the largest confidence that any pair has for it."""
    best: dict[int, np.ndarray] = {}
    for number, pair in enumerate(edges.tolist()):
        for frame, maps in zip(pair, (conf_i, conf_j), strict=True):
            here = np.asarray(maps[number], np.float64)
            best[frame] = np.maximum(best[frame], here) if frame in best else here
    return np.stack([best[k] for k in range(len(best))])


def pnp(world: Float[np.ndarray, "H W 3"], confidence: Float[np.ndarray, "H W"], focal: float) -> Float[np.ndarray, "4 4"]:
    """MonST3R's pose of a camera that sees points of the world: RANSAC over SQPnP; the identity where that fails."""
    height, width = confidence.shape
    seen = confidence > PNP_CONFIDENCE
    if seen.sum() < PNP_POINTS:
        return np.eye(4)
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)[seen].astype(np.float32)
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    success, rotation, translation, _ = cv2.solvePnPRansac(
        world[seen].astype(np.float32),
        pixels,
        camera,
        np.empty(0),
        iterationsCount=PNP_STEPS,
        reprojectionError=PNP_PIXELS,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not success:
        return np.eye(4)
    pose = np.eye(4)
    matrix = cv2.Rodrigues(rotation)[0]
    pose[:3, :3], pose[:3, 3] = matrix.T, -matrix.T @ translation[:, 0]
    return pose


def equal_confidences(scores: Float[np.ndarray, "E"]) -> bool:
    """Whether no pair is better than another, so that the tree is one of many: by the order of the pairs."""
    return len(scores) > 2 and bool(np.ptp(scores) <= 1e-12 * np.abs(scores).max())


def decodings(frames: int, reach: int = 2) -> int:
    """Directed pairs of a video: 2 n T - n (n + 1)."""
    return sum(1 for i, j in itertools.combinations(range(frames), 2) if j - i <= reach) * 2 if frames > 1 else 1
