"""What `modeling.evaluation.kernels` does, in torch's own operations, for machines without Triton."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BITS, WIDEST = 32, 2**15


def hidden_bits(pair_P2: Tensor, never_V: Tensor, num_rows: int) -> Tensor:
    num_items = len(never_V)
    row_P, column_P = pair_P2.T
    column_P = torch.where((column_P >= 0) & (column_P < num_items), column_P, num_items)
    hidden_NV = F.pad(never_V, (0, 1)).repeat(num_rows, 1)
    hidden_NV = hidden_NV.index_put((row_P, column_P), torch.ones_like(row_P, dtype=torch.bool))[:, :-1]
    bits_NGB = F.pad(hidden_NV, (0, -num_items % BITS), value=True).unflatten(1, (-1, BITS))
    weight_B = 2 ** torch.arange(BITS, device=never_V.device)
    return torch.where(bits_NGB, weight_B, 0).sum(2).to(torch.int32)


def _hidden(words_RG: Tensor) -> Tensor:
    bit_B = torch.arange(BITS, device=words_RG.device, dtype=torch.int32)
    return ((words_RG[:, :, None] >> bit_B) & 1).bool().flatten(1)


def _shown(scores_RT: Tensor, words_RG: Tensor, first: int) -> Tensor:
    hidden_RT = _hidden(words_RG)[:, first : first + scores_RT.shape[1]]
    return scores_RT.where(~hidden_RT, -torch.inf)


def count_better(
    scores_RT: Tensor, words_RG: Tensor, first: int, least_R: Tensor, most_R: Tensor, twice_R: Tensor
) -> None:
    shown_RT = _shown(scores_RT, words_RG, first)
    twice_R += (shown_RT > most_R[:, None]).sum(1) + (shown_RT >= least_R[:, None]).sum(1)


def group_maxima(scores_RT: Tensor, words_RG: Tensor, first: int, most_RG: Tensor) -> None:
    shown_RT = _shown(scores_RT.nan_to_num(torch.inf, torch.inf, -torch.inf), words_RG, first)
    whole_RT = F.pad(shown_RT, (0, -shown_RT.shape[1] % BITS), value=-torch.inf)
    group = first // BITS
    most_RG[:, group : group + whole_RT.shape[1] // BITS] = whole_RT.unflatten(1, (-1, BITS)).amax(2)


def best_of_row(values_RX: Tensor, count: int) -> tuple[Tensor, Tensor]:
    values_RK, place_RK = values_RX.sort(dim=1, descending=True, stable=True)
    return values_RK[:, :count], place_RK[:, :count]


def open_groups(scores_RV: Tensor, words_RG: Tensor, group_RB: Tensor, num_items: int) -> Tensor:
    bit_B = torch.arange(BITS, device=group_RB.device)
    column_RX = (group_RB[:, :, None] * BITS + bit_B).flatten(1)
    hidden_RX = _hidden(words_RG).gather(1, column_RX)
    scores_RX = scores_RV.gather(1, column_RX.clamp(max=num_items - 1)).nan_to_num(torch.inf, torch.inf, -torch.inf)
    return scores_RX.where(~hidden_RX, -torch.inf)
