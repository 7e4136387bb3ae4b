import os

import pytest
import torch
from support.hub import shared_hub


# Nothing here may reach for the Hub.
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(config, items):
    if os.environ.get("RUN_SLOW") == "1":
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; set RUN_SLOW=1"))


@pytest.fixture(scope="session")
def built_hub(tmp_path_factory):
    """Folder with all published folders."""
    return shared_hub(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def peers(tmp_path_factory):
    """Return a function that creates the folder of a tiny model, once per name."""
    from support.tiny_peers import write_peer

    root, made = tmp_path_factory.mktemp("models"), {}

    def folder(name):
        if name not in made:
            made[name] = write_peer(name, root / name)
        return made[name]

    return folder
