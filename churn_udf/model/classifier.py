"""The churn model: a text encoder and coded numeric features, fused into one logit.

``logit = wide(codes) + deep([text, numeric])``: the wide part is an additive model on the
coded features, the deep part reads both modalities. Either modality can be replaced by its
training mean, which is how missing parts are dropped in training, how reasons are told, and
how a model of one modality alone (``ModelConfig.modality``) is kept from the other.

Shape suffixes: B rows, N tokens, F features, C code width, D hidden, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from churn_udf.contracts.bundle import MODEL_CONFIG_FILE, WEIGHTS_FILE
from churn_udf.errors import BundleIntegrityError
from churn_udf.model.config import NUMERIC, TEXT, TEXT_GROUP, ModelConfig
from churn_udf.model.encoder import build_encoder
from churn_udf.model.numeric import PiecewiseLinearEncoding

INITIAL_TEXT_GAIN = 0.1
"""The text joins quietly: a numeric branch trained before it is not drowned in noise."""


class ChurnClassifier(nn.Module):
    """Text and numeric features of a customer in, churn logit out."""

    mean_text_D: torch.Tensor
    mean_codes_FC: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        num_features, code_width = len(config.features), config.num_bins + 1
        self.encoder = build_encoder(config.encoder, config.adapter)
        self.coding = PiecewiseLinearEncoding(num_features, config.num_bins)
        self.text_projection = nn.Sequential(
            nn.Linear(self.encoder.hidden_size, config.text_dim), nn.LayerNorm(config.text_dim)
        )
        self.numeric_projection = nn.Linear(num_features * code_width, config.numeric_dim)
        self.wide = nn.Linear(num_features * code_width, 1)
        self.fusion = nn.Sequential(
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.text_dim + config.numeric_dim, config.fusion_dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.fusion_dim, 1),
        )
        nn.init.constant_(self.text_projection[1].weight, INITIAL_TEXT_GAIN)  # type: ignore[arg-type]
        self.register_buffer("mean_text_D", torch.zeros(self.encoder.hidden_size))
        self.register_buffer("mean_codes_FC", torch.zeros(num_features, code_width))

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the parts of the input that effects are told for; the text is last."""
        return (*self.config.groups, TEXT_GROUP)

    @property
    def reads_text(self) -> bool:
        """Whether a text changes anything."""
        return self.config.modality != NUMERIC

    def encode_text(
        self, ids_N: torch.Tensor, segments_N: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        """Return (B, D) float32 states that stand for the texts; their mean if none is read."""
        if not self.reads_text:
            return self.mean_text_D.expand(len(lengths), -1)
        pooled: torch.Tensor = self.encoder(ids_N, segments_N, lengths)
        return pooled.float()

    def fuse(self, text_BD: torch.Tensor, codes_BFC: torch.Tensor) -> torch.Tensor:
        """Return (B,) logits from encoded text and coded features."""
        text_BD, codes_BFC = self._seen(text_BD, codes_BFC)
        flat = codes_BFC.flatten(-2)
        return self._combine(
            self.text_projection(text_BD), self.numeric_projection(flat), self.wide(flat)
        )

    def _seen(
        self, text_BD: torch.Tensor, codes_BFC: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Replace the modality that this model does not read by its training mean."""
        if self.config.modality == TEXT:
            codes_BFC = self.mean_codes_FC.expand_as(codes_BFC)
        if self.config.modality == NUMERIC:
            text_BD = self.mean_text_D.expand_as(text_BD)
        return text_BD, codes_BFC

    def _combine(
        self, text: torch.Tensor, numeric: torch.Tensor, wide: torch.Tensor
    ) -> torch.Tensor:
        """Return logits from the projected modalities, any leading dimensions."""
        logits: torch.Tensor = self.fusion(torch.cat([text, numeric], dim=-1)) + wide
        return logits.squeeze(-1)

    def forward(
        self,
        ids_N: torch.Tensor,
        segments_N: torch.Tensor,
        lengths: Sequence[int],
        features_BF: torch.Tensor,
    ) -> torch.Tensor:
        """Return (B,) float32 churn logits.

        Args:
            ids_N: (N,) int64 token ids of all texts, packed.
            segments_N: (N,) int64 segment ids.
            lengths: Tokens of each of the B texts.
            features_BF: (B, F) float64, NaN where unknown.
        """
        return self.fuse(self.encode_text(ids_N, segments_N, lengths), self.coding(features_BF))

    def group_effects(
        self, logits_B: torch.Tensor, text_BD: torch.Tensor, codes_BFC: torch.Tensor
    ) -> torch.Tensor:
        """Return by how many logits each group raises the risk.

        Each group in turn is replaced by the training mean; the effect is the logit lost.

        Returns:
            (B, G) float32, groups in the order of ``group_names``.
        """
        text_BD, codes_BFC = self._seen(text_BD, codes_BFC)
        flat, groups = codes_BFC.flatten(-2), self.config.groups
        projected = torch.cat([self.numeric_projection(flat), self.wide(flat)], dim=-1)
        weights = torch.cat([self.numeric_projection.weight, self.wide.weight])
        weights_FCP = weights.T.reshape(*codes_BFC.shape[1:], -1)
        changes_BFC = self.mean_codes_FC - codes_BFC
        replaced = [projected]  # both projections are linear: a group's change is added to them
        for group in groups:
            members = [i for i, item in enumerate(self.config.features) if item.group == group]
            changed = changes_BFC[:, members].flatten(1) @ weights_FCP[members].flatten(0, 1)
            replaced.insert(-1, projected + changed)
        replaced_BGP = torch.stack(replaced, dim=1)
        text = self.text_projection(text_BD).unsqueeze(1).expand(-1, len(groups), -1)
        typical = self.text_projection(self.mean_text_D).expand(len(text_BD), 1, -1)
        without_BG = self._combine(
            torch.cat([text, typical], dim=1), replaced_BGP[..., :-1], replaced_BGP[..., -1:]
        )
        return logits_B.unsqueeze(-1) - without_BG

    def save(self, directory: Path) -> None:
        """Write ``model.json`` and ``model.safetensors`` into an existing directory."""
        (directory / MODEL_CONFIG_FILE).write_text(self.config.to_json(), encoding="utf-8")
        state = {
            name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()
        }
        save_file(state, directory / WEIGHTS_FILE)

    @classmethod
    def load(cls, directory: Path) -> ChurnClassifier:
        """Read a saved model, in evaluation mode, on the CPU.

        Raises:
            BundleIntegrityError: A file is missing or does not fit the other.
        """
        try:
            config = ModelConfig.from_json(
                (directory / MODEL_CONFIG_FILE).read_text(encoding="utf-8")
            )
            model = cls(config)
            model.load_state_dict(load_file(directory / WEIGHTS_FILE))
        except BundleIntegrityError:
            raise
        except Exception as error:
            raise BundleIntegrityError(
                f"{directory} holds no usable model ({type(error).__name__}: {error}); "
                "restore the bundle or run `churn-train run`"
            ) from error
        return model.eval()
