"""
Label photographs in the seven classes with small models: three of ADE20K vote, a sky net sharpens the sky's edge.

Needs numpy, opencv-python-headless, ai-edge-litert, tflite, ncnn and typer in an environment of their own; neither
PyTorch nor this package. The teachers' folder holds MLPerf's mobile segmenters (R4, R3) and the DeepLab of TF Hub
(ADE20K, 150 classes) as TFLite files, and `skysegsmall` for ncnn.

Where the vote is unsure, the teachers disagree or an indoor wall is seen, the label is 255. With `--merge`, existing
label maps decide wherever they are not 255, and the vote fills confident pixels only. Finished photographs are
skipped; `--votes` keeps the votes, so that other thresholds need no teacher.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from transformers_massformer.data.label_images import write_label_image


VOTERS = (
    "mlperf_mobile_segmenter_r4_quant_argmax_uint8.tflite",
    "mlperf_mobile_segmenter_r3_quant_argmax_uint8.tflite",
    "deeplabv3_mnv2_ade20k_1_default_1.tflite",
)
SKY_NET, SKY_SIDE, SKY_INPUT, SKY_OUTPUT = "skysegsmall_sim-opt-fp16", 384, "input.1", "1959"
IGNORE, CLASSES, HUMAN, BUILDING, SKY = 255, 7, 1, 2, 5
# Channel of walls, which count as buildings outdoors only.
WALL = 7
# Classes of ADE20K by their 1-based number; all the rest are "others".
ADE20K = {
    HUMAN: (13,),
    # building, windowpane, door, house, column, skyscraper, grandstand, screen door, bridge, hovel, tower, awning,
    # canopy
    BUILDING: (2, 9, 15, 26, 43, 49, 52, 59, 62, 80, 85, 87, 107),
    # tree, grass, plant, field, flower, palm
    3: (5, 10, 18, 30, 67, 73),
    # floor, road, sidewalk, earth, mountain, rug, rock, sand, path, stairs, runway, stairway, hill, dirt track, land,
    # step, pier
    4: (4, 7, 12, 14, 17, 29, 35, 47, 53, 54, 55, 60, 69, 92, 95, 122, 141),
    SKY: (3,),
    # water, sea, river, swimming pool, waterfall, lake, fountain
    6: (22, 27, 61, 105, 110, 114, 129),
    WALL: (1,),
}
# Longest side of a vote; photographs from LARGE pixels on are also seen in 2 x 2 overlapping tiles of the first voter.
VOTE_SIDE, LARGE, TILE, TILE_SHARE = 1024, 1400, 0.6, 0.35
# Overlap of the sky net and the vote from which the net decides, in this many pixels around its edge.
SKY_OVERLAP, SKY_REACH = 0.7, 12
SUFFIXES = (".jpg", ".jpeg", ".png")


class Segmenter:
    """A TFLite model of ADE20K: an RGB photograph to probabilities of the seven classes and walls."""

    def __init__(self, path: Path, threads: int):
        from ai_edge_litert.interpreter import Interpreter  # ty: ignore[import-not-found]  # not in this environment

        scores = scores_before_argmax(path)
        self.model = Interpreter(str(path), num_threads=threads, experimental_preserve_all_tensors=scores is not None)
        self.model.allocate_tensors()
        self.input = self.model.get_input_details()[0]
        self.output = self.model.get_output_details()[0]["index"] if scores is None else scores
        details = {tensor["index"]: tensor for tensor in self.model.get_tensor_details()}
        self.scale, self.zero = details[self.output]["quantization"]

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        """Segment a photograph, in the resolution of the model."""
        side, (height, width) = int(self.input["shape"][1]), photo.shape[:2]
        height, width = (max(1, round(length * side / max(height, width))) for length in (height, width))
        square = np.full((side, side, 3), 128, np.uint8)
        square[:height, :width] = resize(photo, (width, height))
        is_quantized = self.input["dtype"] == np.uint8
        values = square if is_quantized else square.astype(np.float32) / 127.5 - 1
        self.model.set_tensor(self.input["index"], values[None])
        self.model.invoke()
        logits = self.model.get_tensor(self.output)[0].astype(np.float32)
        if self.scale:
            logits = (logits - self.zero) * self.scale
        rows, columns = (max(1, round(length * len(logits) / side)) for length in (height, width))
        return seven_classes(softmax(logits[:rows, :columns]))


class SkyNet:
    """The sky net: an RGB photograph to the probability of sky."""

    def __init__(self, folder: Path, threads: int):
        import ncnn  # ty: ignore[import-not-found]  # not in this environment

        self.matrix, self.net = ncnn.Mat, ncnn.Net()
        self.net.opt.num_threads = threads
        # Half precision overflows on CPUs that calculate in it.
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(self.net.opt, option, False)
        self.net.load_param(str(folder / f"{SKY_NET}.param"))
        self.net.load_model(str(folder / f"{SKY_NET}.bin"))

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        """Find the sky of a photograph, in the photograph's size."""
        square = resize(photo, (SKY_SIDE, SKY_SIDE)).astype(np.float32) / 255
        square = (square - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
        extractor = self.net.create_extractor()
        # The matrix uses the memory of the array without keeping it alive.
        planes = np.ascontiguousarray(square.transpose(2, 0, 1))
        matrix = self.matrix(planes)
        extractor.input(SKY_INPUT, matrix)
        sky = np.array(extractor.extract(SKY_OUTPUT)[1]).reshape(SKY_SIDE, SKY_SIDE)
        return resize(sky, photo.shape[1::-1])


def scores_before_argmax(path: Path) -> int | None:
    """Return the tensor that goes into a model's ArgMax, or None if it ends in scores."""
    from tflite.BuiltinOperator import BuiltinOperator  # ty: ignore[import-not-found]  # not in this environment
    from tflite.Model import Model  # ty: ignore[import-not-found]  # not in this environment

    model = Model.GetRootAs(path.read_bytes(), 0)
    graph, scores = model.Subgraphs(0), None
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) == BuiltinOperator.ARG_MAX:
            scores = int(operator.Inputs(0))
    return scores


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to (width, height): by area if smaller, else linearly; channel by channel, OpenCV 5 takes at most 4."""
    if picture.ndim == 3 and picture.shape[-1] > 4:
        return np.stack([resize(channel, size) for channel in np.moveaxis(picture, -1, 0)], -1)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if size[0] < picture.shape[1] else cv2.INTER_LINEAR)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn scores into probabilities."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def seven_classes(probabilities: np.ndarray) -> np.ndarray:
    """Add up the probabilities of ADE20K's classes; a model that knows the commonest only has a shorter last axis."""
    count = probabilities.shape[-1]
    sums = [
        probabilities[..., [i for i in ADE20K.get(label, ()) if i < count]].sum(-1) for label in range(CLASSES + 1)
    ]
    sums[0] = 1 - sum(sums[1:])
    return np.stack(sums, -1)


def vote(photo: np.ndarray, voters: Sequence[Callable]) -> list[np.ndarray]:
    """Return what each voter sees in a photograph and its mirror image, in the photograph's size."""
    votes = []
    for voter in voters:
        straight, mirrored = voter(photo), voter(np.ascontiguousarray(photo[:, ::-1]))[:, ::-1]
        votes.append(resize((straight + mirrored) / 2, photo.shape[1::-1]))
    return votes


def vote_tiles(photo: np.ndarray, voter: Callable) -> np.ndarray:
    """Return what a voter sees in 2 x 2 overlapping tiles."""
    height, width = photo.shape[:2]
    rows, columns = round(height * TILE), round(width * TILE)
    seen, count = np.zeros((height, width, CLASSES + 1), np.float32), np.zeros((height, width, 1), np.float32)
    for top in (0, height - rows):
        for left in (0, width - columns):
            tile = np.s_[top : top + rows, left : left + columns]
            seen[tile] += vote(photo[tile], [voter])[0]
            count[tile] += 1
    return seen / count


def sharpen_sky(votes: np.ndarray, sky: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Let the sky net decide near its edge if it means the region that the vote means; also return where it did."""
    net, voted = sky > 0.5, votes[..., SKY] > 0.5
    either, both = (net | voted).sum(), (net & voted).sum()
    if both <= SKY_OVERLAP * either or either < 0.005 * sky.size:
        return votes, np.zeros_like(net)
    kernel = np.ones((2 * SKY_REACH + 1,) * 2, np.uint8)
    near = np.bitwise_and(cv2.dilate(net.astype(np.uint8), kernel), cv2.dilate((~net).astype(np.uint8), kernel))
    weight = 0.8 * cv2.blur(near.astype(np.float32), (9, 9))[..., None]
    rest = votes.copy()
    rest[..., SKY] = 0
    sharp = rest / (rest.sum(-1, keepdims=True) + 1e-6) * (1 - sky[..., None])
    sharp[..., SKY] = sky
    return (1 - weight) * votes + weight * sharp, near > 0


def ask_teachers(photo: np.ndarray, voters: Sequence[Callable], sky_net: Callable) -> np.ndarray:
    """Return the vote in at most VOTE_SIDE pixels: percent of each class and of walls, then where voters disagree."""
    longest = max(photo.shape[:2])
    scale = min(1, VOTE_SIDE / longest)
    height, width = (round(length * scale) for length in photo.shape[:2])
    small = resize(photo, (width, height))
    single = vote(small, voters)
    votes = np.mean(single, 0)
    if longest >= LARGE:
        votes = (1 - TILE_SHARE) * votes + TILE_SHARE * vote_tiles(small, voters[0])
    disagree = ~most_agree(single, votes)
    votes, sharpened = sharpen_sky(votes, sky_net(small))
    return np.concatenate([np.rint(100 * votes), (disagree & ~sharpened)[..., None]], -1).astype(np.uint8)


def winner(votes: np.ndarray) -> np.ndarray:
    """Return the most probable class, walls counted as buildings."""
    classes = votes[..., :CLASSES].copy()
    classes[..., BUILDING] += votes[..., WALL]
    return classes.argmax(-1)


def most_agree(single: list[np.ndarray], votes: np.ndarray) -> np.ndarray:
    """Tell where most voters have the vote's class, apart from thin lines at edges."""
    count = sum((winner(one) == winner(votes)).astype(np.uint8) for one in single)
    minority = (2 * count <= len(single)).astype(np.uint8)
    reach = max(3, max(minority.shape) // 100) | 1
    return cv2.morphologyEx(minority, cv2.MORPH_OPEN, np.ones((reach, reach), np.uint8)) == 0


def guided_upsample(photo: np.ndarray, small: np.ndarray, radius: int = 4, epsilon: float = 1e-4) -> np.ndarray:
    """Bring maps to a photograph's size along its edges, with a fast guided filter (He and Sun 2015)."""

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (2 * radius + 1,) * 2)

    size = photo.shape[1::-1]
    full = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    guide = resize(full, small.shape[1::-1])
    average = mean(guide)
    variance = mean(guide * guide) - average * average
    maps = []
    for values in np.moveaxis(small.astype(np.float32), -1, 0):
        slope = (mean(guide * values) - average * mean(values)) / (variance + epsilon)
        offset = mean(mean(values) - slope * average)
        maps.append((resize(mean(slope), size) * full + resize(offset, size)).clip(0, 1))
    return np.stack(maps, -1)


def label_photo(photo: np.ndarray, votes: np.ndarray, confidence: float, keep_walls: bool) -> np.ndarray:
    """Return a photograph's label map: the vote where it is sure, else 255."""
    maps = guided_upsample(photo, votes[..., : CLASSES + 1] / 100)
    labels, total = winner(maps).astype(np.uint8), maps.sum(-1) + 1e-6
    inside = maps[..., WALL].copy()
    maps[..., BUILDING] += inside
    unsure = maps[..., :CLASSES].max(-1) < confidence * total
    unsure |= resize(votes[..., -1].astype(np.float32), photo.shape[1::-1]) > 0.5
    if not keep_walls:
        unsure |= (labels == BUILDING) & (2 * inside > maps[..., BUILDING])
    labels[unsure] = IGNORE
    return labels


def merge(existing: np.ndarray, filling: np.ndarray, margin: int, complete: list[int]) -> np.ndarray:
    """Fill unlabelled pixels, but not near a labelled person nor with classes that are labelled completely."""
    outside = (existing != HUMAN).astype(np.uint8)
    far = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > margin if not outside.all() else True
    fits = (existing == IGNORE) & ~np.isin(filling, complete) & far
    return np.where(fits, filling, existing)


def read_votes(path: Path | None, photo: np.ndarray, ask: Callable) -> np.ndarray:
    """Return a photograph's vote, from a file if it is there."""
    if path and path.exists():
        with np.load(path) as file:
            return file["votes"]
    votes = ask(photo)
    if path:
        temporary = path.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, votes=votes)
        temporary.replace(path)
    return votes


def read_picture(path: Path, mode: int) -> np.ndarray:
    """Read a picture with OpenCV, which returns nothing for files that it cannot read."""
    picture = cv2.imread(str(path), mode)
    if picture is None:
        raise typer.BadParameter(f"{path} is missing or cannot be read as a picture.")
    return np.asarray(picture)


def main(
    photos: Annotated[Path, typer.Option(help="Folder of photographs.", exists=True, file_okay=False)],
    teachers: Annotated[Path, typer.Option(help="Folder of the teachers' files.", exists=True, file_okay=False)],
    output: Annotated[Path, typer.Option(help="Folder for the label maps, NAME.png.")],
    labels: Annotated[Path | None, typer.Option("--merge", help="Folder of label maps that decide.")] = None,
    votes: Annotated[Path | None, typer.Option(help="Folder that keeps the votes.")] = None,
    confidence: Annotated[float, typer.Option(help="Least confidence.", min=0, max=1)] = 0.6,
    fill_confidence: Annotated[float, typer.Option(help="Least confidence with --merge.", min=0, max=1)] = 0.8,
    margin: Annotated[int, typer.Option(help="With --merge: pixels around labelled people not to fill.")] = 4,
    complete: Annotated[
        list[int] | None, typer.Option(help="With --merge: index of a class that the labels contain completely.")
    ] = None,
    keep_walls: Annotated[bool, typer.Option(help="Take indoor walls for buildings.")] = False,
    threads: Annotated[int, typer.Option(help="Threads.", min=1)] = 1,
):
    """Label the photographs of a folder."""
    cv2.setNumThreads(threads)
    voters, sky_net = [Segmenter(teachers / name, threads) for name in VOTERS], SkyNet(teachers, threads)
    for folder in filter(None, (output, votes)):
        folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in photos.iterdir() if path.suffix.lower() in SUFFIXES):
        target = output / f"{path.stem}.png"
        if target.exists():
            continue
        photo = read_picture(path, cv2.IMREAD_COLOR)[..., ::-1].copy()
        seen = read_votes(votes and votes / f"{path.stem}.npz", photo, lambda x: ask_teachers(x, voters, sky_net))
        found = label_photo(photo, seen, fill_confidence if labels else confidence, keep_walls)
        if labels:
            existing = read_picture(labels / target.name, cv2.IMREAD_UNCHANGED)
            found = merge(existing, found, margin, complete or [])
        write_label_image(found, target, palette=False)
        typer.echo(f"{path.name}: {np.mean(found == IGNORE):.0%} unlabelled")


if __name__ == "__main__":
    typer.run(main)
