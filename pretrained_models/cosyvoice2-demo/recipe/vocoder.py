"""Train the vocoder (HiFT, base 128) on every speaker's audio: mel and F0 in, waveform out, spectral losses, no
discriminator. Its pitch predictor sees few frames that way, and is also trained alone (`--stage pitch`), fifty times
faster: a harmonic source that is a tenth off in pitch costs more words than anything else.

State: WORK/state/vocoder.pt. Stops after --minutes; run again to go on.

    python vocoder.py --work WORK --stage pitch --minutes 10 --rate 1e-3
    python vocoder.py --work WORK --minutes 60 --rate 1.2e-3 --final-rate 1e-4
    python vocoder.py --work WORK --minutes 40 --rate 8e-4 --final-rate 2e-5 --flow-share 0.6
"""

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import dims
import features
import numpy as np
import shards
import torch
import torch.nn.functional as F

NUM_FRAMES = 32
BATCH = 8
PITCH_BATCH, PITCH_FRAMES, LOW_PITCH_HZ = 16, 200, 80.0
RESOLUTIONS = [(2048, 480), (1024, 240), (512, 120), (240, 60)]
WINDOWS = {size: torch.hann_window(size) for size, _ in RESOLUTIONS}


def spectral_loss(made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Spectral convergence plus log-magnitude L1 over four resolutions. [B, N], [B, N] -> scalar."""
    total = torch.zeros(())
    for size, hop in RESOLUTIONS:
        made_spectrum, real_spectrum = (
            torch.stft(x, size, hop, size, WINDOWS[size], return_complex=True).abs().clamp(min=1e-5)
            for x in (made, real)
        )
        total = total + torch.norm(real_spectrum - made_spectrum) / torch.norm(real_spectrum)
        total = total + F.l1_loss(made_spectrum.log(), real_spectrum.log())
    return total / len(RESOLUTIONS)


class Batches:
    """Random cuts of NUM_FRAMES frames; a share of them with the flow's mel in place of the true one."""

    def __init__(self, work: Path, flow_share: float, seed: int) -> None:
        names = shards.shard_names(work)
        audio = {name: shards.load_audio(work, name) for name in names}
        self._sentences = [s for name in names for s in audio[name] if len(s.codes) * 2 > NUM_FRAMES]
        self._by_flow = [
            replace(audio[name][index], mel=mel)
            for name in names
            for index, mel in shards.load_flow_mels(work, name).items()
            if len(mel) > NUM_FRAMES
        ]
        self._flow_share = flow_share if self._by_flow else 0.0
        self._rng = np.random.default_rng(seed)
        hours = [sum(len(s.codes) for s in sentences) / 90000 for sentences in (self._sentences, self._by_flow)]
        print(f"{hours[0]:.1f} h, {hours[1]:.1f} h with the flow's mels", flush=True)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """mel [B, 80, T], f0 [B, T], samples [B, 480 T]."""
        mels, pitches, samples = [], [], []
        for _ in range(BATCH):
            pool = self._by_flow if self._rng.random() < self._flow_share else self._sentences
            sentence = pool[self._rng.integers(len(pool))]
            assert sentence.mel is not None and sentence.f0_hz is not None and sentence.pcm is not None
            start = int(self._rng.integers(0, len(sentence.mel) - NUM_FRAMES + 1))
            gain = self._rng.uniform(0.5, 1.0)
            cut = slice(start, start + NUM_FRAMES)
            mels.append(np.maximum(sentence.mel[cut].T.astype(np.float32) + math.log(gain), math.log(1e-5)))
            pitches.append(sentence.f0_hz[cut].astype(np.float32))
            pcm = sentence.pcm[start * features.HOP : (start + NUM_FRAMES) * features.HOP]
            samples.append(pcm.astype(np.float32) / 32767 * gain)
        return tuple(torch.from_numpy(np.stack(x).astype(np.float32)) for x in (mels, pitches, samples))  # type: ignore[return-value]


def pitch_loss(guessed: torch.Tensor, f0_hz: torch.Tensor) -> torch.Tensor:
    """Mean relative error; where there is no voice, relative to a low one. [B, T], [B, T] -> scalar."""
    return ((guessed - f0_hz).abs() / f0_hz.clamp(min=LOW_PITCH_HZ)).mean()


def train_pitch(path: Path, work: Path, minutes: float, rate: float, final_rate: float) -> None:
    """Train the pitch predictor alone, on whole rows of frames."""
    state = torch.load(path, weights_only=True)
    model = dims.build_vocoder()
    model.load_state_dict(state["model"])
    predictor = model.f0_predictor
    sentences = [s for name in shards.shard_names(work) for s in shards.load_audio(work, name)]
    by_flow = [
        replace(shards.load_audio(work, name)[index], mel=mel)
        for name in shards.shard_names(work)
        for index, mel in shards.load_flow_mels(work, name).items()
    ]
    rows = []
    for pool in (sentences, by_flow):
        if pool:
            mel = np.concatenate([np.asarray(s.mel) for s in pool])
            rows.append((torch.from_numpy(mel), torch.from_numpy(np.concatenate([np.asarray(s.f0_hz) for s in pool]))))
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    started, step, total = time.monotonic(), 0, 0.0
    while (progress := (time.monotonic() - started) / (minutes * 60)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = final_rate * (rate / final_rate) ** (1 - progress) * min(1, (step + 1) / 50)
        mels, pitches = rows[step % len(rows)]
        starts = torch.randint(len(mels) - PITCH_FRAMES, (PITCH_BATCH,))
        mel = torch.stack([mels[s : s + PITCH_FRAMES] for s in starts]).float().transpose(1, 2)
        mel = (mel + torch.empty(PITCH_BATCH, 1, 1).uniform_(math.log(0.5), 0)).clamp(min=math.log(1e-5))
        f0_hz = torch.stack([pitches[s : s + PITCH_FRAMES] for s in starts]).float()
        loss = pitch_loss(predictor(mel), f0_hz)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
        optimizer.step()
        step, total = step + 1, total + loss.item()
        if step % 100 == 0:
            print(f"pitch step {step} relative error {total / 100:.4f}", flush=True)
            total = 0.0
    state["model"] = model.state_dict()
    shards.save_state(path, state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--final-rate", type=float, default=1e-4)
    parser.add_argument("--stage", choices=["all", "pitch"], default="all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--flow-share", type=float, default=0.0, help="cuts with the mel of `flow.py --stage mels`")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    path = args.work / "state/vocoder.pt"
    if args.stage == "pitch":
        train_pitch(path, args.work, args.minutes, args.rate, args.final_rate)
        return
    model = dims.build_vocoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.8, 0.99), weight_decay=0.01)
    step, cpu_s = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        if state["optimizer"]:  # none after restart.py
            optimizer.load_state_dict(state["optimizer"])
        step, cpu_s = state["step"], state["cpu_s"]
    batches = Batches(args.work, args.flow_share, seed=step)
    print(f"from step {step}", flush=True)

    started, first = time.monotonic(), time.process_time()
    sums = torch.zeros(3)
    while (progress := (time.monotonic() - started) / (args.minutes * 60)) < 1:
        rate = args.final_rate * (args.rate / args.final_rate) ** (1 - progress)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50)
        mel, f0_hz, real = batches.draw()
        guessed = model.f0_predictor(mel)
        pitch = pitch_loss(guessed, f0_hz)
        used = guessed.detach() if step % 4 == 3 and step > 1500 else f0_hz
        source, _, _ = model.m_source(model.f0_upsamp(used[:, None]).transpose(1, 2))
        made = model.decode(mel, source.transpose(1, 2))
        made = made[:, : real.shape[1]]
        mel_loss = F.l1_loss(features.flow_mel(made)[..., 2:-2], features.flow_mel(real)[..., 2:-2])
        stft_loss = spectral_loss(made, real)
        optimizer.zero_grad()
        (stft_loss + mel_loss + pitch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        sums += torch.stack([stft_loss.detach(), mel_loss.detach(), pitch.detach()])
        if step % 100 == 0:
            now = cpu_s + time.process_time() - first
            stft, mel_l1, pitch_error = (sums / 100).tolist()
            print(f"step {step} cpu {now:.0f} s stft {stft:.3f} mel {mel_l1:.3f} pitch {pitch_error:.3f}", flush=True)
            sums.zero_()
        if step % 200 == 0 or progress > 0.999:
            now = cpu_s + time.process_time() - first
            shards.save_state(
                path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "cpu_s": now}
            )
    now = cpu_s + time.process_time() - first
    shards.save_state(
        path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "cpu_s": now}
    )


if __name__ == "__main__":
    main()
