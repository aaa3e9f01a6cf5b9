"""Training states out of a finished checkpoint, for going on without the work folder that it came from.

Writes WORK/state/{codes,flow,vocoder,tokenizer,language}.pt; the language model's turn is after `codes.py --stage
label`. If the codes were learnt anew since, `--codes-were` names the centroids of the checkpoint's codes; each new code
then starts from the old ones that sound most like it.

    python restart.py --work WORK --checkpoint DIR --part codes --part flow --part vocoder --part tokenizer
    python restart.py --work WORK --checkpoint DIR --part language
"""

import argparse
from pathlib import Path

import dims
import numpy as np
import onnx
import shards
import torch
import torch.nn.functional as F
from frontend import Trunk
from language import Codebook, LanguageModel
from onnx import numpy_helper
from tokenizers import Tokenizer

NUM_BLENDED = 4


def load(path: Path) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in torch.load(path, weights_only=True).items()}


def restart_flow(work: Path, checkpoint: Path) -> None:
    weights = load(checkpoint / "flow.pt")
    state = {"model": weights, "average": weights, "stage": "restart", "optimizer": {}}
    counts = {"steps": {"encoder": 1, "estimator": 1}, "cpu_s": {"encoder": 0.0, "estimator": 0.0}}
    shards.save_state(work / "state/flow.pt", state | counts)


def restart_codes(work: Path, checkpoint: Path) -> None:
    weights = load(checkpoint / "recipe/codes.pt")
    np.save(work / "kmeans.npy", (weights["points"] * weights["scale"] + weights["centre"]).numpy())
    shards.save_state(work / "state/codes.pt", {"codes": weights, "step": 1})


def restart_vocoder(work: Path, checkpoint: Path) -> None:
    weights = {name.removeprefix("generator."): value for name, value in load(checkpoint / "hift.pt").items()}
    shards.save_state(work / "state/vocoder.pt", {"model": weights, "optimizer": {}, "step": 1, "cpu_s": 0.0})


def restart_tokenizer(work: Path, checkpoint: Path) -> None:
    """The network before the codebook, whose constants come in the order in which `frontend.py` writes them."""
    constants = [numpy_helper.to_array(c) for c in onnx.load(checkpoint / "speech_tokenizer_v2.onnx").graph.initializer]
    values = iter(torch.from_numpy(c.astype(np.float32)) for c in constants if c.dtype == np.float16)
    model = Trunk(128, 160, 5)
    convolutions = [model.down1, model.down2]
    for block in model.blocks:
        convolutions += [block.context, block.conv]  # type: ignore[list-item]
    with torch.no_grad():
        for convolution in (*convolutions, model.out):
            convolution.weight.copy_(next(values))
            assert convolution.bias is not None
            convolution.bias.copy_(next(values))
    shards.save_state(work / "state/tokenizer.pt", {"model": model.state_dict(), "optimizer": {}, "step": 1})


def translate(table: torch.Tensor, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Rows of old codes -> rows of new ones, a blend of the nearest; what follows the codes stays. [6564, ...]."""
    distance, index = torch.cdist(new, old).square().topk(NUM_BLENDED, largest=False)
    weights = torch.softmax(-distance / distance[:, 0].median(), 1)
    rows = (table[index] * weights.view(*weights.shape, *[1] * (table.dim() - 1))).sum(1)
    return torch.cat([rows, table[dims.NUM_CODES :]])


@torch.no_grad()
def restart_language(work: Path, checkpoint: Path, codes_were: Path | None) -> None:
    weights, codebook = load(checkpoint / "llm.pt"), Codebook.load(work)
    model = LanguageModel(codebook, Tokenizer.from_file(str(work / "bpe.json")))
    prefix = "llm.model.model."
    kept = {n[len(prefix) :]: v for n, v in weights.items() if n.startswith((f"{prefix}layers.", f"{prefix}norm."))}
    tables = [weights[f"{name}"] for name in ("speech_embedding.weight", "llm_decoder.weight", "llm_decoder.bias")]
    if codes_were:
        old = torch.from_numpy(np.load(codes_were))
        tables = [translate(table, old, codebook.pieces) for table in tables]
    spoken, decoder, bias = tables
    text = weights[f"{prefix}embed_tokens.weight"]
    shared = F.pad(model.features, (0, 0, 0, 3))
    text_map, in_map, out_map = (
        torch.linalg.lstsq(features, table, driver="gelsd").solution
        for features, table in ((model.token_features, text), (shared, spoken), (shared, decoder))
    )
    state = {
        **model.state_dict(),
        **kept,
        "llm_embedding.weight": weights["llm_embedding.weight"],
        "text_map": text_map,
        "text_rows": text - model.token_features @ text_map,
        "in_map": in_map,
        "in_rows": spoken - shared @ in_map,
        "out_map": out_map,
        "out_rows": decoder - shared @ out_map,
        "out_bias": bias,
    }
    model.load_state_dict(state)
    shards.save_state(
        work / "state/language.pt", {"model": state, "average": state, "optimizer": {}, "step": 1, "cpu_s": 0.0}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument(
        "--part", choices=["codes", "flow", "vocoder", "tokenizer", "language"], action="append", required=True
    )
    parser.add_argument("--codes-were", type=Path)
    args = parser.parse_args()
    if "codes" in args.part:
        restart_codes(args.work, args.checkpoint)
    if "flow" in args.part:
        restart_flow(args.work, args.checkpoint)
    if "vocoder" in args.part:
        restart_vocoder(args.work, args.checkpoint)
    if "tokenizer" in args.part:
        restart_tokenizer(args.work, args.checkpoint)
    if "language" in args.part:
        restart_language(args.work, args.checkpoint, args.codes_were)


if __name__ == "__main__":
    main()
