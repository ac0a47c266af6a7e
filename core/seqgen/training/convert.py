"""From autoregression to block diffusion: the same weights, another mask, and further training.

    masked = to_masked(model)                                    # shifted inputs -> masked inputs
    loss = options.loss(masked, targets_BS, seed=seed, step=step)  # [noisy | clean], one pass
    BlockDiffusion(block_length=4).generate(masked, canvas)

What an autoregressive network knows stays: the states of decided slots are what they were, shifted
by one slot. What it has to learn is to read a slot out at a mask that stands there, and to see the
block around it (SDAR, arXiv 2510.06303; BD3-LM, arXiv 2503.09573). docs/conversion.md shows how far
a short training takes it.

Shapes: B rows, S slots, D width, V vocabulary, N rows of the embedding table.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from seqgen.errors import ConfigError
from seqgen.heads import CategoricalHead
from seqgen.inputs import Inputs, MaskedInputs, RasterInputs, ShiftedInputs
from seqgen.masks import BlockCausal, Causal, Mask, _Both, _Either
from seqgen.model import Context, SequenceModel, device_of
from seqgen.options import option
from seqgen.orders import Blocks
from seqgen.seeds import item_seed
from seqgen.training.objectives import Noise, noisy_clean
from seqgen.transformer import Transformer
from seqgen.value_inputs import MaskedValueInputs, ValueInputs


@dataclass(frozen=True)
class BlockDiffusionOptions:
    """Options of a conversion, for any domain; `--set key=value`.

    A domain that needs more derives from it.
    """

    block_length: int = option(4, help="slots a block", range=(1, None))
    rate_per: Literal["sample", "block"] = option(
        "block", help="draw a masking rate a sample (SDAR) or a block (BD3-LM)"
    )
    rate_low: float = option(0.1, help="lowest masking rate", range=(1e-3, 1.0))
    rate_high: float = option(1.0, help="highest masking rate", range=(1e-3, 1.0))
    weighting: Literal["rate", "none"] = option(
        "rate", help="divide a slot's loss by its masking rate (a likelihood bound), or do not"
    )

    def __post_init__(self) -> None:
        if self.rate_low > self.rate_high:
            raise ConfigError(
                f"rate_low={self.rate_low} is above rate_high={self.rate_high}",
                fix="rate_low is the lower end of the range that rates are drawn from",
            )

    @property
    def order(self) -> Blocks:
        """Blocks aligned to slot 0."""
        return Blocks(self.block_length)

    @property
    def noise(self) -> Noise:
        """The rates as the objective takes them."""
        per: Literal["sample", "group"] = "sample" if self.rate_per == "sample" else "group"
        return Noise(self.rate_low, self.rate_high, per=per, weighting=self.weighting)

    def loss(
        self,
        model: SequenceModel,
        targets_BS: Tensor,
        valid_BS: Tensor | None = None,
        *,
        seed: int,
        step: int,
        rank: int = 0,
        context: Context | None = None,
        fixed_BS: Tensor | None = None,
    ) -> Tensor:
        """The loss of one step; what is masked is a function of (seed, step, rank).

        Args:
            targets_BS: ids, or vectors [B, S, C].
            valid_BS: slots in use; None for all.
            fixed_BS: slots that are given (a prompt): never masked, no loss.
        """
        return noisy_clean(
            model,
            targets_BS,
            valid_BS,
            order=self.order,
            generator=torch.Generator().manual_seed(item_seed(seed, f"noise {step} rank {rank}")),
            noise=self.noise,
            context=context,
            fixed_BS=fixed_BS,
        )


MakeInputs = Callable[[RasterInputs, nn.Embedding, int], Inputs]
"""(a copy of the shifted inputs, the table with the mask's row, mask id) -> masked inputs."""


def to_masked(
    model: SequenceModel,
    *,
    mask_id: int | None = None,
    positions: int = 0,
    adds_given: bool = False,
    in_vocabulary: bool = False,
    inputs: MakeInputs | None = None,
) -> SequenceModel:
    """A copy of an autoregressive model with masked inputs, ready for `noisy_clean` and decoding.

    Backbone and head keep their weights; a head tied to the embedding stays tied. Causal masks
    become block-causal. A start token is given up: a model that decodes without a prompt needs
    `positions` or `adds_given`, since equal masks tell no slot from another.

    Args:
        model: with `ShiftedInputs` or `ValueInputs`.
        mask_id: row of the mask: one that is there, or N to append one; None appends. It starts as
            the mean of the rows of the values, whatever was there.
        positions: slots to learn absolute positions for, which start at 0; 0 for none.
        adds_given: add `Context.given_BSD` to every slot (as the model did, for `ValueInputs`).
        in_vocabulary: the head gets a row for an appended mask too, as in published formats whose
            head has a row for every token (SDAR). It begins as the mean of the others.
        inputs: makes the inputs of a domain whose slots hold more than an embedding.

    Raises:
        ConfigError: the model is not autoregressive, or its inputs are a domain's own and `inputs`
            is not given, or the mask id does not exist.
    """
    _check(model, inputs)
    made = copy.deepcopy(model)
    made.mask = _block_causal(model.mask)
    old = made.inputs
    if isinstance(old, ValueInputs):
        made.inputs = _masked_values(old, positions, adds_given=adds_given or old.adds_given)
    else:
        assert isinstance(old, ShiftedInputs)
        table = _with_mask(old.embedding, made, mask_id, in_vocabulary=in_vocabulary)
        row = old.embedding.num_embeddings if mask_id is None else mask_id
        made.inputs = (
            MaskedInputs(
                table,
                mask_id=row,
                positions=_positions(positions, table.weight),
                adds_given=adds_given,
            )
            if inputs is None
            else inputs(old, table, row)
        )
    for module in made.modules():
        if isinstance(module, Transformer):
            module._compiled = None  # it would go on running the original's weights
    return made.to(device_of(model)).train(model.training)


def _check(model: SequenceModel, inputs: MakeInputs | None) -> None:
    kind = type(model.inputs)
    if not issubclass(kind, (ShiftedInputs, ValueInputs)):
        raise ConfigError(
            f"a model with {kind.__name__} is not autoregressive",
            why="conversion starts from shifted inputs",
            fix="block diffusion runs a model with masked inputs as it is",
        )
    if inputs is None and kind not in (ShiftedInputs, ValueInputs):
        raise ConfigError(
            f"{kind.__name__} may hold more of a slot than its embedding",
            fix="give to_masked(inputs=...), a function that makes their masked counterpart",
        )


@torch.no_grad()
def _with_mask(
    table: nn.Embedding, model: SequenceModel, mask_id: int | None, *, in_vocabulary: bool
) -> nn.Embedding:
    """The table with a mask row; a tied head goes on sharing it."""
    weight_ND, head = table.weight, model.head
    rows, width = weight_ND.shape
    row = rows if mask_id is None else mask_id
    if not 0 <= row <= rows:
        raise ConfigError(
            f"there is no row {row} for the mask",
            why=f"the embedding has {rows} rows",
            fix=f"a row of the embedding, or {rows} to append one",
        )
    if in_vocabulary and row == rows and isinstance(head, CategoricalHead):
        if head.vocabulary != rows:
            raise ConfigError(
                f"the mask cannot be token {row} of the head, which has {head.vocabulary} values"
            )
        _append_value(head, shared=head.weight is weight_ND)
    values = min(rows, head.vocabulary) if isinstance(head, CategoricalHead) else rows
    others_N = torch.arange(values, device=weight_ND.device) != row
    mean_D = weight_ND[:values][others_N].float().mean(dim=0).to(weight_ND.dtype)
    made = nn.Embedding(max(rows, row + 1), width, device=weight_ND.device, dtype=weight_ND.dtype)
    made.weight[:rows] = weight_ND
    made.weight[row] = mean_D
    made.weight.requires_grad_(weight_ND.requires_grad)
    if isinstance(head, CategoricalHead) and head.weight is weight_ND:
        head.weight = made.weight
    return made


def _append_value(head: CategoricalHead, *, shared: bool) -> None:
    """One more value, its row the mean of the others; a tied head's row is the table's."""
    head.vocabulary += 1
    if not shared:
        head.weight = nn.Parameter(torch.cat([head.weight, head.weight.mean(dim=0)[None]]))
    if head.bias is not None:
        head.bias = nn.Parameter(torch.cat([head.bias, head.bias.mean()[None]]))


@torch.no_grad()
def _masked_values(old: ValueInputs, positions: int, *, adds_given: bool) -> MaskedValueInputs:
    """The mask starts as what entered where nothing was known: the start."""
    made = MaskedValueInputs(
        0,
        len(old.start_D),
        projection=old.projection,
        positions=_positions(positions, old.start_D),
        adds_given=adds_given,
    )
    made.mask_D = nn.Parameter(old.start_D.clone())
    return made


def _positions(count: int, like: Tensor) -> nn.Embedding | None:
    if not count:
        return None
    made = nn.Embedding(count, like.shape[-1], device=like.device, dtype=like.dtype)
    nn.init.zeros_(made.weight)
    return made


def _block_causal(mask: Mask) -> Mask:
    """The mask with every causal part made block-causal; with blocks of one they are the same."""
    if isinstance(mask, Causal):
        return BlockCausal()
    if isinstance(mask, _Both | _Either):
        return type(mask)(_block_causal(mask.left), _block_causal(mask.right))
    return mask
