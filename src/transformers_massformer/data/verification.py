"""Check every file of a data set in MaSS13K's layout."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..images import read_photo
from ..utils.names import same_names
from .class_names import category_faults, read_categories
from .layout import LABELS, PUBLISHED_COUNTS, Fault, Pair, Split
from .mask_values import check_ids
from .presence import Presence, absent_classes, describe_convention, ids_of
from .reading import read_label


@dataclass
class Report:
    """Faults of a data set, notes on what may be wrong, and the ids in a label map."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)


def verify_pair(pair: Pair, labels: Sequence[str]) -> Report:
    """Decode both files of a pair, and check the labels."""
    report = Report()
    try:
        read_photo(pair.image, str(pair.image))
    except (OSError, ValueError) as error:
        report.faults.append(Fault("corrupt image", str(pair.image), str(error)))
    try:
        label, _ = read_label(pair.label, str(pair.label), pair.mask_values)
    except (OSError, ValueError) as error:
        report.faults.append(Fault("corrupt label", str(pair.label), str(error)))
        return report
    try:
        check_ids(label.numpy(), len(labels), "It")
    except ValueError as error:
        report.faults.append(Fault("unknown labels", str(pair.label), str(error)))
    report.ids = ids_of(label.numpy())
    return report


def class_report(name: str, found: Presence, labels: Sequence[str]) -> Report:
    """Report a fault if the values of a split cannot mean classes, else a note per class without a pixel."""
    convention = describe_convention(found, labels)
    if convention is not None:
        return Report([Fault("label maps of a split without classes to tell apart", name, convention)])
    if not found.ids:
        return Report()
    return Report(
        notes=[Fault("class without a pixel", f"{label} in {name}") for label in absent_classes(found, labels)]
    )


def count_notes(splits: dict[str, Split]) -> list[Fault]:
    """Return a note per split whose number of images differs from the release."""
    notes = []
    for name, published in PUBLISHED_COUNTS.items():
        found = len(splits[name].pairs) if name in splits else 0
        if found != published:
            notes.append(Fault("split of another size than the release's", name, f"{found:,} of {published:,} images"))
    return notes


def verify(
    splits: dict[str, Split],
    labels: Sequence[str] = LABELS,
    map_function: Callable[[Callable, Iterable[Any]], Iterable[Report]] = map,
) -> Iterator[Report]:
    """
    Check a data set, pair by pair.

    Args:
        splits (`dict[str, Split]`): From [`find_splits`].
        labels (`Sequence[str]`, *optional*): Names of the classes in the order of ids; by default, MaSS13K's.
        map_function (`Callable`, *optional*): `map`, or a parallel equivalent that keeps the order.

    Yields:
        [`Report`]: First a report on names and sizes, then one per pair, and last one per split on its classes.
    """
    first = Report([fault for split in splits.values() for fault in split.faults])
    first.faults += category_faults(read_categories(splits), labels)
    if same_names(labels, LABELS):
        first.notes += count_notes(splits)
    pairs = [(name, pair) for name, split in splits.items() for pair in split.pairs]
    first.notes += [note for split in splits.values() for note in split.notes]
    yield first
    # Unreadable files have been reported already.
    unreadable = {fault.name for split in splits.values() for fault in split.faults}
    readable = [(name, pair) for name, pair in pairs if not unreadable & {str(pair.image), str(pair.label)}]
    presence = {name: Presence() for name in splits}
    reports = map_function(lambda item: verify_pair(item[1], labels), readable)
    for (name, pair), report in zip(readable, reports, strict=True):
        found = presence[name]
        found.ids |= report.ids
        found.example, found.is_mapped = str(pair.label), pair.mask_values is not None
        yield report
    for name, found in presence.items():
        yield class_report(name, found, labels)
