"""The kernel as an operator that torch knows by name: what it makes, its shapes, its gradients."""

from collections.abc import Sequence
from typing import Any

import torch

from tools.drop_in.modules import call_with, on_device_of, owned, tensors_in
from tools.drop_in.twins import CPU, REFERENCE_PLACE, Twins

NAMESPACE = "kernelwright"


class Operator:
    """Registers `kernelwright::<name>(inputs, state)`, and its backward, with torch.

    `state` are the tensors of a module in the order of `Twins.homes`. Beside what forward returns,
    the operator returns the new values of the buffers that forward changes, and changes none
    itself: so torch may differentiate it, reorder it and export it.
    """

    def __init__(self, name: str, twins: Twins) -> None:
        self.twins = twins
        library: Any = torch.library.Library
        self._library = library(NAMESPACE, "FRAGMENT")
        made = ["Tensor"] * (twins.count + len(twins.updates or ()))
        returned = "Tensor" if len(made) == 1 else f"({', '.join(made)})"
        self._define(name, f"(Tensor[] inputs, Tensor[] state) -> {returned}", self.run, self.fake)
        backward = f"{name}_backward"
        self._define(
            backward, "(Tensor[] tensors, Tensor[] grads, int[] outputs, int[] wanted) -> Tensor[]",
            self.run_backward, self.fake_backward,
        )  # fmt: skip
        torch.library.register_autograd(
            f"{NAMESPACE}::{name}", self.backward, setup_context=self.keep, lib=self._library
        )
        operators = getattr(torch.ops, NAMESPACE)
        self.call = getattr(operators, name).default
        self.call_backward = getattr(operators, backward).default

    def _define(self, name: str, schema: str, run: Any, fake: Any) -> None:
        self._library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        self._library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=self._library)

    def run(self, inputs: list[torch.Tensor], state: list[torch.Tensor]) -> Any:
        """The kernel on real tensors; the reference on those that it was not verified for."""
        twins = self.twins
        twins.able()
        row = twins.row_for(inputs, traced=False)
        if row is None and twins.row_for(inputs, traced=False, laid=False) is not None:
            # A compiler may lay its tensors out as it likes.
            inputs = [t.clone(memory_format=torch.contiguous_format) for t in inputs]
            row = twins.row_for(inputs, traced=False)
        if not twins.laid(state):
            row = None
        place = REFERENCE_PLACE if row is None else row.kernel
        module, spots = twins.bench(place, inputs[0].device)
        with torch.no_grad(), on_device_of(inputs[0]):
            given = twins.rebuilt(inputs)
            returned, left = call_with(module, spots, twins.fresh(state), given)
            made = [*tensors_in(returned), *(left[place] for place in twins.updated)]
            return _one_or_all(owned(made, [*inputs, *state]))

    def fake(self, inputs: list[torch.Tensor], state: list[torch.Tensor]) -> Any:
        """What `run` returns, on tensors without values."""
        made = self._known_outputs(inputs)
        if made is None:
            module, spots = self.twins.bench(REFERENCE_PLACE, CPU)
            with torch.no_grad():
                given = self.twins.rebuilt(inputs)
                returned, _ = call_with(module, spots, self.twins.fresh(state), given)
            made = [inputs[0].new_empty(t.shape, dtype=t.dtype) for t in tensors_in(returned)]
        made += [state[place].new_empty(state[place].shape) for place in self.twins.updated]
        return _one_or_all(made)

    def _known_outputs(self, inputs: list[torch.Tensor]) -> list[torch.Tensor] | None:
        self.twins.able()
        # Comparing a size that may vary would have it vary no more.
        if any(type(size) is not int for tensor in inputs for size in tensor.shape):
            return None
        for row in self.twins.rows:
            if row.outputs and row.fits(inputs, traced=True, laid=False):
                return [inputs[0].new_empty(shape, dtype=dtype) for dtype, shape in row.outputs]
        return None

    def keep(self, ctx: Any, inputs: Any, output: Any) -> None:
        """Keep for backward what it needs."""
        tensors, state = inputs
        ctx.set_materialize_grads(False)
        ctx.count = len(tensors)
        # These buffers change before backward comes, which is no mistake of the user's.
        ctx.save_for_backward(*tensors, *self.twins.fresh(state))
        if self.twins.updated:
            ctx.mark_non_differentiable(*output[self.twins.count :])

    def backward(self, ctx: Any, *grads: torch.Tensor | None) -> Any:
        """The reference's own gradients."""
        saved = list(ctx.saved_tensors)
        needs = [*ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
        wanted = [place for place, need in enumerate(needs) if need]
        kept = {p: g for p, g in enumerate(grads[: self.twins.count]) if g is not None}
        found: list[Any] = [None] * len(saved)
        if kept and wanted:
            outputs, given = list(kept), list(kept.values())
            if torch.is_grad_enabled():  # these gradients will be differentiated in their turn
                made = self.gradients(saved, given, outputs, wanted, again=True)
            else:
                made = self.call_backward(saved, given, outputs, wanted)
            for place, grad in zip(wanted, made, strict=True):
                found[place] = grad
        return found[: ctx.count], found[ctx.count :]

    def gradients(
        self,
        saved: Sequence[torch.Tensor],
        grads: Sequence[torch.Tensor],
        outputs: Sequence[int],
        wanted: Sequence[int],
        again: bool = False,
    ) -> list[torch.Tensor]:
        """Run the reference once more, and differentiate that.

        Args:
            saved: inputs, then state.
            grads: of some of the outputs.
            outputs: which ones.
            wanted: the places in `saved` whose gradients are asked for.
            again: the gradients are to have gradients.
        """
        twins = self.twins
        twins.able()
        count = len(twins.rows[0].places)
        module, spots = twins.bench(REFERENCE_PLACE, saved[0].device)
        # Forward ran without it, whatever surrounds backward.
        exact = torch.autocast(saved[0].device.type, enabled=False)
        with torch.enable_grad(), exact:
            # A tensor may be given twice; each place has a gradient of its own.
            leaves = [t.view_as(t) if again else t.detach() for t in saved]
            for place in () if again else wanted:
                leaves[place].requires_grad_()
            state = twins.fresh(leaves[count:])
            returned, _ = call_with(module, spots, state, twins.rebuilt(leaves[:count]))
            made = tensors_in(returned)
            pairs = [(made[o], g) for o, g in zip(outputs, grads, strict=True)]
            pairs = [(output, grad) for output, grad in pairs if output.requires_grad]
            found: Sequence[torch.Tensor | None] = [None] * len(wanted)
            if pairs:
                found = torch.autograd.grad(
                    [output for output, _ in pairs], [leaves[place] for place in wanted],
                    [grad for _, grad in pairs], allow_unused=True, create_graph=again,
                )  # fmt: skip
        return [
            torch.zeros_like(leaves[place]) if grad is None else grad
            for place, grad in zip(wanted, found, strict=True)
        ]

    def run_backward(
        self,
        tensors: list[torch.Tensor],
        grads: list[torch.Tensor],
        outputs: list[int],
        wanted: list[int],
    ) -> list[torch.Tensor]:
        """`gradients`, as an operator."""
        return owned(self.gradients(tensors, grads, outputs, wanted), [*tensors, *grads])

    def fake_backward(
        self,
        tensors: list[torch.Tensor],
        grads: list[torch.Tensor],
        outputs: list[int],
        wanted: list[int],
    ) -> list[torch.Tensor]:
        """What `run_backward` returns, on tensors without values."""
        return [tensors[place].new_empty(tensors[place].shape) for place in wanted]


def _one_or_all(made: list[torch.Tensor]) -> Any:
    return made[0] if len(made) == 1 else tuple(made)
