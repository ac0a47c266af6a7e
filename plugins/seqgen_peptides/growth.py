"""A trained model with a larger vocabulary: new modifications start from what is known.

A new token takes the weights of its bare residue (an N-terminal one those of the modification
nearest in mass); what makes it another one, its mass, enters through the mass features and the
evidence, which need no training. So a model can be trained further from there:

    seqgen train --plugin peptides --set start=MODEL --set modifications=phospho.yaml ...

Shapes: V vocabulary, k numbers a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqgen_peptides.model import PeptideModel
from seqgen_peptides.residues import Residues


def grow(model: PeptideModel, residues: Residues) -> PeptideModel:
    """The same model over `residues`, which hold the model's own with the same ids."""
    if residues.tokens == model.residues.tokens:
        return model
    grown = PeptideModel(model.config, residues)
    parents = torch.tensor(model.residues.parents(residues))
    old, new = len(model.residues), len(residues)
    state = model.state_dict()
    with torch.no_grad():
        for name, value in grown.state_dict().items():
            value.copy_(_grown(state[name], value.shape, parents, old, new))
    return grown


def _grown(weight: Tensor, shape: torch.Size, parents: Tensor, old: int, new: int) -> Tensor:
    """A weight whose axis of the vocabulary, if it has one, takes the rows of the parents."""
    for axis, (have, wanted) in enumerate(zip(weight.shape, shape, strict=True)):
        if have == wanted:
            continue
        if have == old + 1 and wanted == new + 1:  # an embedding with the mask behind
            index = torch.cat([parents, torch.tensor([old])])
            return weight.index_select(axis, index)
        per_token = have // old
        assert have == per_token * old
        assert wanted == per_token * new
        split = weight.reshape(*weight.shape[:axis], old, per_token, *weight.shape[axis + 1 :])
        return split.index_select(axis, parents).reshape(shape)
    return weight
