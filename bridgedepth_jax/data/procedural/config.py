"""Every range the generator draws from, in one frozen dataclass (pixels unless said otherwise)."""

import dataclasses

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Ranges are (low, high) of a uniform draw, probabilities are in 0..1. `dataclasses.replace` makes a variant.

    Disparities follow from `near` (the largest of a scene, a fraction of `max_disparity`, drawn log-uniformly) and from
    `far` (the smallest, a fraction of the scene's largest), so that scenes of all ranges occur at every image size.
    """

    # Geometry. One weight per layout, in the order of `scene.LAYOUTS`.
    layouts: tuple[tuple[str, float], ...] = (
        ("room", 0.22),
        ("street", 0.2),
        ("tabletop", 0.23),
        ("flying", 0.2),
        ("photo", 0.15),
    )
    near: Range = (0.08, 0.97)
    even: float = 0.3  # share of scenes whose `near` is drawn uniformly instead: many large disparities
    far: Range = (0.03, 0.7)
    focal: Range = (0.7, 1.9)  # focal length in image widths
    objects: tuple[int, int] = (4, 14)
    clutter: float = 0.15  # probability of twice as many objects
    floating: tuple[int, int] = (0, 0)  # further things in the air of rooms, streets and table tops
    floating_size: Range = (-1.5, -0.45)  # of log10 of their size in image heights
    background: tuple[int, int] = (0, 0)  # further things just before the farthest surface
    tilt: Range = (0.0, 0.35)  # disparity slope of free surfaces, pixels per pixel
    thin: float = 0.3  # share of thin structures among the objects
    screen: float = 0.06  # probability of a fence, twigs or wires before the whole scene
    transparent: float = 0.08  # probability of a see-through pane; its pixels are not valid
    fine: float = 0.0  # share of scenes painted twice as large, then reduced: finer things, soft edges, half the disparities

    # Surfaces. `textures` is the number of generated textures kept in memory (256 KiB or 768 KiB each).
    textures: int = 240
    ready_textures: int = 400  # number of finished textures kept for smaller things (192 KiB each)
    fresh: float = 0.35  # share of the larger things whose texture is made for them all the same
    photo_share: float = 0.3  # of the surfaces, where photographs are at hand
    flat: float = 0.22  # share of surfaces without texture
    detail: float = 0.6  # share of surfaces with fine grain on top
    gloss: float = 0.12  # share of objects (half as many floors) with a faint reflection that lies behind the surface
    gloss_strength: Range = (0.05, 0.3)
    texel: Range = (0.45, 1.05)  # texels per pixel where a surface is closest
    shadows: float = 0.6  # probability of soft shadows
    highlights: float = 0.2  # probability of highlights that do not move with the surface
    highlight_shift: float = 4.0  # largest disparity error of a highlight

    # Photometry, the same in both views.
    level: Range = (55.0, 170.0)  # mean grey level the exposure aims at
    level_gain: Range = (0.6, 2.0)  # most it may darken or brighten for that by a factor,
    level_curve: Range = (0.55, 1.6)  # and by an exponent
    gamma: Range = (0.85, 1.2)  # a further exponent
    tint: float = 0.08  # white balance, largest relative gain per channel
    haze: float = 0.15  # probability of a veil that grows with distance
    haze_depth: Range = (0.02, 0.2)  # the disparity at which it is a third of its most, a fraction of the scene's largest
    haze_most: float = 0.6  # its weight far away
    vignette: Range = (0.0, 0.35)  # loss in the corner
    blur: Range = (0.0, 0.9)  # sigma of the lens
    sharpen: float = 0.3  # probability of a camera's sharpening
    sharpening: Range = (0.2, 1.0)  # strength of the unsharp mask
    # Photometry, different between the views.
    asymmetry: float = 0.6  # probability of any of the following four
    view_exposure: float = 0.12  # largest relative difference
    view_gamma: float = 0.1
    view_tint: float = 0.05
    view_blur: float = 0.6  # extra sigma of one view
    asymmetric_light: float = 0.1  # probability that the views differ three times as much (another exposure)
    motion: float = 0.08  # probability of motion blur, the same in both views
    motion_length: Range = (1.5, 4.0)
    # Sensor.
    noise: float = 0.85  # probability
    read_noise: Range = (0.2, 3.0)  # standard deviation, grey levels of 255
    shot_noise: Range = (0.0, 0.3)  # standard deviation = shot * sqrt(grey level)
    jpeg: float = 0.3  # probability
    jpeg_quality: tuple[int, int] = (40, 95)
    misaligned: float = 0.3  # probability of a vertical error of the right view
    misalignment: float = 0.5  # largest vertical error at the image centre
    misalignment_tilt: float = 0.3  # largest further error at the side edges (roll)

    @classmethod
    def named(cls, name: str) -> "SyntheticConfig":
        """One of SCENES."""
        return SCENES[name]

    def clean(self) -> "SyntheticConfig":
        """The same scenes without anything that breaks the equality of matching pixels; for tests and experiments."""
        return dataclasses.replace(
            self,
            transparent=0.0,
            highlights=0.0,
            gloss=0.0,
            haze=0.0,
            level_gain=(1.0, 1.0),
            level_curve=(1.0, 1.0),
            gamma=(1.0, 1.0),
            tint=0.0,
            vignette=(0.0, 0.0),
            blur=(0.0, 0.0),
            sharpen=0.0,
            asymmetry=0.0,
            motion=0.0,
            noise=0.0,
            jpeg=0.0,
            misaligned=0.0,
        )


_CROWDED = SyntheticConfig(
    near=(0.04, 0.97),
    even=0.1,
    far=(0.02, 0.6),
    floating=(10, 30),
    background=(2, 8),
    thin=0.4,
    gloss=0.2,
    highlights=0.3,
    transparent=0.06,
)

# "sparse" is what the renderer made first. "crowded" has what published ablations found to matter most (a network trained
# on 5,000 rendered pairs, Middlebury at half size): floating and background objects, all materials, thin
# structures, far ranges, and few scenes whose disparities push most matches out of a narrow crop. "fine" is crowded as a
# photograph is that was made smaller; half of "mixed" is. "hazy" is for networks of one view: things stand on a ground and
# fade in fog; of flying things and bent photographs one view tells nothing.
SCENES = {
    "sparse": SyntheticConfig(),
    "crowded": _CROWDED,
    "fine": dataclasses.replace(_CROWDED, fine=1.0),
    "mixed": dataclasses.replace(_CROWDED, fine=0.5),
    "hazy": SyntheticConfig(layouts=(("room", 0.4), ("street", 0.6)), haze=1.0, haze_depth=(0.2, 0.8), haze_most=0.9),
}
