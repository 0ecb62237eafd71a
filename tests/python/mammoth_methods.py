"""Runs methods of the real Mammoth, each in a fork, and writes what they computed.

Usage: mammoth_methods.py DATA RESULTS {local,remote,library} METHOD_OPTIONS...
with Mammoth's checkout as the working directory; a method's options are one word. With
`library` methods are remote, and run by what Mammoth gives as the package `mammoth`.

After each of the steps whose numbers MAMMOTH_PAUSES has, separated by blanks, it makes
a file `at-NUMBER` in RESULTS, and waits for `go-NUMBER` there.
"""

import hashlib
import json
import os
import random
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any

os.environ["MAMMOTH_TEST"] = "1"
# Data sets that are not used here import it, and take the third of these.
open_clip: Any = types.ModuleType("open_clip")
open_clip.create_model_and_transforms = lambda *_, **__: (None, None, None)
sys.modules["open_clip"] = open_clip
sys.path.insert(0, os.getcwd())

import main  # noqa: E402  Mammoth's: it sets the number of threads.
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402

if sys.argv[3] != "local":
    import backboned_mammoth  # noqa: F401

from datasets.utils.continual_dataset import ContinualDataset  # noqa: E402
from models.utils.continual_model import ContinualModel  # noqa: E402

# Our pictures are not those whose checksums torchvision knows.
torchvision.datasets.cifar.check_integrity = lambda path, *_: os.path.isfile(path)

if not torch.cuda.is_available():
    # lucir waits for a GPU, whether there is one or not.
    torch.cuda.synchronize = lambda *_: None

RESULTS = sys.argv[2]
COMMON = (
    *("--lr", "0.03", "--seed", "0", "--n_epochs", "1", "--batch_size", "4"),
    *("--debug_mode", "1", "--num_workers", "0", "--non_verbose", "1"),
)


class Record:
    """The results of a run, which pauses after some of its steps."""

    def __init__(self):
        pauses = set(map(int, os.environ.get("MAMMOTH_PAUSES", "").split()))
        self.losses, self.accuracies, self.models = [], [], []
        observe, log = ContinualModel.meta_observe, ContinualDataset.log

        def noting_observe(model, *args, **options):
            loss = observe(model, *args, **options)
            self.losses.append(repr(loss))
            if model not in self.models:
                self.models.append(model)
            if len(self.losses) in pauses:
                pause(len(self.losses))
            return loss

        def noting_log(dataset, args, logger, accuracies, *rest, **options):
            self.accuracies.append(repr(accuracies))
            return log(dataset, args, logger, accuracies, *rest, **options)

        ContinualModel.meta_observe, ContinualDataset.log = noting_observe, noting_log

    def result(self):
        model = self.models[0]
        digest = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            digest.update(name.encode() + tensor.detach().numpy().tobytes())
        digest.update(torch.get_rng_state().numpy().tobytes())
        digest.update(np.random.get_state()[1].tobytes())
        digest.update(repr(random.getstate()).encode())
        return {
            "losses": self.losses,
            "accuracies": self.accuracies,
            "state": digest.hexdigest(),
            "class": type(model.net).__name__,
            "optimizer": f"{type(model.opt).__module__}.{type(model.opt).__name__}",
        }


def pause(number):
    folder = Path(RESULTS)
    (folder / f"at-{number}").touch()
    while not (folder / f"go-{number}").exists():
        time.sleep(0.01)


def train(options, data, path):
    words = [*options.split(), *COMMON, "--base_path", data]
    library = sys.argv[3] == "library"
    sys.argv = ["main.py", *([] if library else words)]
    record = Record()
    if library:
        import mammoth

        named = {k[2:]: v for k, v in zip(words[::2], words[1::2])}
        model, dataset = named.pop("model"), named.pop("dataset")
        mammoth.train(*mammoth.load_runner(model, dataset, named))
    else:
        main.main()
    with open(path, "w") as file:
        json.dump(record.result(), file)


def main_program():
    data, results, _, *methods = sys.argv[1:]
    failed = 0
    for index, options in enumerate(methods):
        pid = os.fork()
        if pid == 0:
            try:
                train(options, data, os.path.join(results, f"{index}.json"))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)  # Not all libraries come to their end after a fork.
        failed += os.waitpid(pid, 0)[1] != 0
    sys.exit(failed)


if __name__ == "__main__":
    main_program()
