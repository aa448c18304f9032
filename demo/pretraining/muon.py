"""A small Muon optimizer in fp32: torch's own iterates in bfloat16, which a CPU only emulates, slowly.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers" (2024), the quintic's coefficients too.
"""

import torch


def orthogonalise(update: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz: [count, rows, columns] matrices towards the nearest semi-orthogonal ones."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update.mT if (tall := update.shape[-2] > update.shape[-1]) else update
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled to AdamW's usual root mean square; for 2-D weights only."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every weight that has a gradient; weights of one shape are iterated together."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                updates = []
                for weight in weights:
                    buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                    buffer.lerp_(weight.grad, 1 - group["momentum"])
                    updates.append(weight.grad.lerp(buffer, group["momentum"]))
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for weight, update in zip(weights, orthogonalise(torch.stack(updates)), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def optimizers(model: torch.nn.Module, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks ("layers."), AdamW for everything else."""
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers." in n]
    ids = {id(p) for p in inside}
    outside = [p for p in model.parameters() if id(p) not in ids]
    adam = torch.optim.AdamW(outside, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.01)
    return [Muon(inside, lr=muon_lr, weight_decay=0.05), adam]


class Schedule:
    """Learning rates over a fixed number of steps: warm-up, constant, then linear to zero."""

    def __init__(self, optimizers_: list[torch.optim.Optimizer], steps: int):
        self._rates = [(group, group["lr"]) for made in optimizers_ for group in made.param_groups]
        self._steps = steps

    def set(self, step: int) -> None:
        """Set the rates of `step`, counted from 0."""
        fraction, warmup, decay_from = step / self._steps, 0.03, 0.35
        factor = min(1.0, (fraction + 1e-3) / warmup, (1 - fraction) / (1 - decay_from))
        for group, rate in self._rates:
            group["lr"] = rate * factor
