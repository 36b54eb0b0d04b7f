"""What the training stages share: parameters in flat buffers, the optimisers over them, graphs, clocks, logs."""

import glob
import json
import os
import time

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file


class Ranks:
    """The processes that train one model together, one a GPU, as torchrun starts them; a single one without it."""

    def __init__(self):
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        if self.count > 1:
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")

    def average(self, tensor):
        """The mean over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor.div_(self.count)

    def agree(self, tensor):
        """The first process's values, in place."""
        if self.count > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def close(self):
        if self.count > 1:
            dist.destroy_process_group()


class Flat:
    """A model's parameters as views of flat buffers: float32 masters, 16-bit copies that compute, gradients, EMA.

    Matrices named by `muon` are updated by Muon (orthogonalised momentum), batched by shape; all else by Adam. Nothing
    in step() looks at the host, so that it can be captured in a graph.
    """

    def __init__(self, model, device, muon=lambda name, p: None, dtype=torch.bfloat16):
        named = list(model.named_parameters())
        adam = [(n, p) for n, p in named if muon(n, p) is None]
        shapes = {}
        for n, p in named:
            shape = muon(n, p)
            if shape is not None:
                shapes.setdefault(tuple(shape), []).append((n, p))
        self.slots, self.batches, at = {}, [], 0

        def place(n, p):
            nonlocal at
            self.slots[n] = (at, p.numel(), tuple(p.shape), p.dim() == 4)
            at += -(-p.numel() // 64) * 64

        for n, p in adam:
            place(n, p)
        self.adam_end = at
        for (r, c), group in sorted(shapes.items()):
            begin = at
            for n, p in group:
                place(n, p)
            if (r * c) % 64 or (at - begin) % (r * c):
                raise ValueError(f"matrices of {r} x {c} do not tile their buffer")
            self.batches.append((begin, at, r, c))
        zeros = lambda kind: torch.zeros(at, device=device, dtype=kind)  # noqa: E731
        self.master, self.first = zeros(torch.float32), zeros(torch.float32)
        self.second = torch.zeros(self.adam_end, device=device)
        self.shadow, self.grad = zeros(dtype), zeros(dtype)
        for n, p in named:
            self.view(self.master, n).copy_(p.data)
        self.shadow.copy_(self.master)
        self.ema = self.master.clone()
        for n, p in named:
            p.data = self.view(self.shadow, n)
            p.grad = self.view(self.grad, n)
        for b_name, b in model.named_buffers():
            b.data = b.data.to(device)
        scalar = lambda v: torch.tensor(v, device=device, dtype=torch.float32)  # noqa: E731
        self.lr, self.lr_muon, self.keep = scalar(0.0), scalar(0.0), scalar(0.99)
        self.count, self.norm = scalar(0.0), scalar(0.0)

    def view(self, buffer, name):
        at, n, shape, picture = self.slots[name]
        flat = buffer[at : at + n]
        if picture:  # weights of convolutions, channels last
            o, i, h, w = shape
            return flat.view(o, h, w, i).permute(0, 3, 1, 2)
        return flat.view(shape)

    def step(self, betas=(0.9, 0.99), momentum=0.95, decay=0.05, clip=1.0):
        b1, b2 = betas
        end = self.adam_end
        self.count += 1
        g = self.grad[:end].float()
        norm = torch.linalg.vector_norm(self.grad.float())
        self.norm.copy_(norm)
        fine = torch.isfinite(norm)
        g = torch.where(fine, g, 0) * (clip / (norm + 1e-6)).nan_to_num(0.0).clamp(max=1)
        m, v = self.first[:end], self.second
        m.lerp_(g, 1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        update = (m / (1 - b1**self.count)) / ((v / (1 - b2**self.count)).sqrt() + 1e-8)
        self.master[:end].sub_(update * self.lr)
        for begin, stop, r, c in self.batches:
            g = torch.where(fine, self.grad[begin:stop].float(), 0)
            m = self.first[begin:stop]
            m.mul_(momentum).add_(g)
            u = orthogonal((g + momentum * m).view(-1, r, c))
            w = self.master[begin:stop]
            w.mul_(1 - self.lr_muon * decay)
            w.sub_(u.reshape(-1).float() * (self.lr_muon * 0.2 * max(r, c) ** 0.5))
        self.shadow.copy_(self.master)
        self.ema.lerp_(self.master, 1 - self.keep)

    def state(self, model, ema=True):
        """A state dict in float32, contiguous, buffers included."""
        buffer = self.ema if ema else self.master
        out = {n: self.view(buffer, n).detach().clone().contiguous().cpu() for n in self.slots}
        out.update({n: b.detach().float().cpu() for n, b in model.named_buffers()})
        return out

    def checkpoint(self):
        """What training needs to go on, in 16 bit and in pieces that fit into files of any size. The momentum is left
        out: it forgets in twenty steps, and whoever resumes ramps the rate up over more. The average is state()."""
        halves = {"master": self.master.half(), "second": self.second.bfloat16()}
        out = {f"{k}.{i}": piece.clone().cpu() for k, v in halves.items() for i, piece in enumerate(v.split(1 << 20))}
        return out | {"count": self.count.reshape(1).cpu()}

    def restore(self, saved, average):
        """Takes over a checkpoint() and the average's state()."""
        for name, buffer in (("master", self.master), ("second", self.second)):
            pieces = [saved[f"{name}.{i}"] for i in range(sum(k.startswith(name + ".") for k in saved))]
            if sum(len(p) for p in pieces) != len(buffer):
                raise SystemExit(f"the saved state is of another model: {name} has another size")
            buffer.copy_(torch.cat(pieces))
        self.count.copy_(saved["count"][0])
        self.first.zero_()
        self.shadow.copy_(self.master)
        for name in self.slots:
            self.view(self.ema, name).copy_(average[name])


def orthogonal(g):
    """Newton and Schulz's iteration towards the nearest orthogonal matrix, of a batch [n, r, c]."""
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (torch.linalg.vector_norm(x.float(), dim=(1, 2), keepdim=True) * 1.02 + 1e-12).bfloat16()
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.mT if tall else x


class Graphed:
    """A function without arguments, captured as a CUDA graph; called plainly on a CPU or where capture fails."""

    pool = None

    def __init__(self, function, enabled=True, warm=3):
        self.function, self.graph = function, None
        if not (enabled and torch.cuda.is_available()):
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(warm):
                function()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        try:
            if Graphed.pool is None:
                Graphed.pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Of this thread alone: NCCL's watchdog asks for events meanwhile.
            with torch.cuda.graph(graph, pool=Graphed.pool, capture_error_mode="thread_local"):
                function()
            self.graph = graph
        except Exception as e:  # noqa: BLE001  (slower is better than not at all)
            print(f"CAPTURE FAILED, running without a graph: {e!r}", flush=True)
            torch.cuda.synchronize()

    def __call__(self):
        if self.graph is None:
            self.function()
        else:
            self.graph.replay()


class Clock:
    """The share of a stage's time that is over. The seconds may be in a file that is changed while the stage runs:
    it holds the end as seconds since the epoch."""

    def __init__(self, seconds, end_file=None, begin=None):
        self.begin = begin or time.time()
        self.seconds, self.end_file = seconds, end_file

    def end(self):
        if self.end_file and os.path.exists(self.end_file):
            try:
                with open(self.end_file, encoding="utf-8") as f:
                    return float(f.read())
            except ValueError:
                pass
        return self.begin + self.seconds

    def share(self):
        return (time.time() - self.begin) / max(self.end() - self.begin, 1e-3)


class Log:
    """Lines on the terminal and in a .jsonl file; none without a path."""

    def __init__(self, path):
        self.path, self.begin = path, time.time()

    def __call__(self, **values):
        if self.path is None:
            return
        values = {"t": round(time.time() - self.begin, 1), **values}
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()})
        print(line, flush=True)
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(line + "\n")


def save_atomic(function, path):
    """Writes by a name beside the final one, so that a reader never sees half a file."""
    part = path + ".part"
    function(part)
    os.replace(part, path)


MOST_BYTES = 15 << 20  # of tensors in a file: results are fetched from machines that give back files of 16 MiB


def _parts(prefix):
    """The files that save_parts wrote, in order."""
    found = glob.glob(glob.escape(prefix) + "-[0-9]*-of-[0-9]*.safetensors")
    return sorted(found, key=lambda path: int(path.rsplit("-", 3)[1]))


def save_parts(tensors, prefix, **values):
    """Writes tensors as prefix-1-of-N.safetensors and so on, none over 16 MiB (unless one tensor is), with a few
    values beside them. All parts are complete before the first takes its name."""
    groups, room = [{}], MOST_BYTES
    for name, tensor in sorted(tensors.items()):
        size = tensor.numel() * tensor.element_size()
        if size > room and groups[-1]:
            groups.append({})
            room = MOST_BYTES
        groups[-1][name] = tensor.contiguous()
        room -= size
    saved = {"values": json.dumps(values), "saved": str(time.time())}
    names = [f"{prefix}-{i + 1}-of-{len(groups)}.safetensors" for i in range(len(groups))]
    for name, group in zip(names, groups):
        save_file(group, name + ".part", metadata=saved)
    for name in names:
        os.replace(name + ".part", name)
    for name in set(_parts(prefix)) - set(names):
        os.remove(name)


def load_parts(prefix):
    """The tensors of save_parts and its values."""
    paths = _parts(prefix)
    if not paths or not paths[-1].endswith(f"-{len(paths)}-of-{len(paths)}.safetensors"):
        raise SystemExit(f"{prefix}-1-of-N.safetensors and so on: {len(paths)} found, not all; fetch or train them first")
    tensors, stamps = {}, set()
    for path in paths:
        with safe_open(path, "pt") as f:
            tensors.update({k: f.get_tensor(k) for k in f.keys()})
            stamps.add((f.metadata()["saved"], f.metadata()["values"]))
    if len(stamps) > 1:
        raise SystemExit(f"{paths[0]} and the files beside it are of different saves: fetch them again together")
    return tensors, json.loads(stamps.pop()[1])
