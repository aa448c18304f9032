"""One rank: ``torchrun gpu_rank.py FILE FUNCTION FOLDER`` runs the function with FOLDER/arguments.json."""

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    file, function, folder = sys.argv[1:]
    from nemo_amalia.platform import prepare

    backend = prepare()
    import torch
    import torch.distributed as dist

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # fp32 is what bf16 is held against
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend)
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    arguments = json.loads((Path(folder) / "arguments.json").read_text())
    result = getattr(module, function)(**arguments)
    Path(folder, f"{dist.get_rank()}.json").write_text(json.dumps(result))
    dist.barrier()


if __name__ == "__main__":
    code = 0
    try:
        main()
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # peers may hang in a collective, and checkpoint and data threads block a normal exit
