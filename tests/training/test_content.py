from __future__ import annotations

import math

import pytest
import torch

from conftest import make_tiny
from vocable.codec.config import SpectralConfig
from vocable.codec.model import SpeechTokenizer
from vocable.semantic.distillation import NO_UNIT
from vocable.training.codebooks import CodebookEMA
from vocable.training.content import ContentLosses, SpeakerClassifier, agreement_loss
from vocable.training.data import Batch
from vocable.training.disturb import Disturber
from vocable.training.recipe import Content

CLIPS, FRAMES = 4, 12
ALL = Content(phones=1.0, consistency=1.0, agreement=0.5, speaker=0.5)


def make_codec() -> SpeechTokenizer:
    blocks = {f"{side}_{rate}_blocks": 1 for side in ("encoder", "decoder") for rate in ("fine", "frame")}
    spectral = SpectralConfig(fine_dim=16, frame_dim=16, expansion=2, content_blocks=1, **blocks)
    codec = make_tiny(spectral=spectral, dimension=16, num_quantizers=2).train()
    latents = codec.encoder(make_batch().waveform).detach().flatten(0, 1)
    CodebookEMA(codec.quantizer).kmeans_start(latents, 3, torch.Generator().manual_seed(0))
    return codec


def make_losses(recipe: Content = ALL, speakers: int = 3) -> ContentLosses:
    torch.manual_seed(1)
    return ContentLosses(recipe, 16, 5, speakers, Disturber(16_000, [], torch.device("cpu")))


def make_batch(phones: torch.Tensor | None = None, speakers: torch.Tensor | None = None) -> Batch:
    """A batch whose clips are tones, each with one phone and one speaker."""
    time = torch.arange(FRAMES * 320) / 16_000
    tones = torch.stack([0.3 * torch.sin(2 * math.pi * (200 + 400 * i) * time) for i in range(CLIPS)])
    if phones is None:
        phones = torch.arange(CLIPS)[:, None].expand(-1, FRAMES).clone()
        phones[:, -2:] = NO_UNIT
    speakers = torch.tensor([0, 1, 2, NO_UNIT]) if speakers is None else speakers
    return Batch(tones, None, torch.full((CLIPS,), 2), phones, speakers)


def compute_losses(
    codec: SpeechTokenizer, losses: ContentLosses, batch: Batch, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    output = codec(batch.waveform, num_layers=batch.num_layers)
    return losses(codec, output, batch.waveform, batch, torch.Generator().manual_seed(seed))


def test_losses_are_those_of_the_recipe() -> None:
    codec, batch = make_codec(), make_batch()
    for recipe, names, shown in (
        (Content(phones=1.0), {"phones"}, {"phones_right"}),
        (Content(consistency=1.0), {"consistency"}, {"kept"}),
        (Content(agreement=1.0), {"agreement"}, {"kept"}),
        (Content(speaker=1.0), {"speaker", "voice"}, {"speakers_right"}),
        (Content(consistency=1.0, disturbed=0.0, phones=1.0), {"phones"}, {"phones_right"}),
        (ALL, {"phones", "consistency", "agreement", "speaker", "voice"}, {"phones_right", "kept", "speakers_right"}),
    ):
        losses, figures = compute_losses(codec, make_losses(recipe), batch)
        assert set(losses) == names and set(figures) == shown
        assert all(loss.shape == () and torch.isfinite(loss) and loss.requires_grad for loss in losses.values())
        assert all(0 <= figure <= 1 and not figure.requires_grad for figure in figures.values())


def test_losses_fall() -> None:
    """All losses of the classifiers fall, and the consistency loss."""
    codec, losses = make_codec(), make_losses(Content(phones=1.0, consistency=1.0, speaker=1.0))
    groups = [{"params": codec.parameters(), "lr": 0.002}, {"params": losses.parameters(), "lr": 0.05}]
    optimizer = torch.optim.Adam(groups)
    found: list[dict[str, float]] = []
    for step in range(25):
        values, figures = compute_losses(codec, losses, make_batch(), seed=step)
        (values["phones"] + values["consistency"] + values["speaker"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append({name: float(value.detach()) for name, value in (values | figures).items()})
    for name, part in (("phones", 0.75), ("speaker", 0.75)):
        assert found[-1][name] < part * found[0][name], name
    assert found[-1]["phones_right"] > found[0]["phones_right"]
    tail = [sum(step["consistency"] for step in part) for part in (found[:5], found[-5:])]
    assert tail[1] < tail[0]


def test_without_labels_losses_are_0_and_figures_numbers() -> None:
    codec, losses = make_codec(), make_losses()
    unknown = make_batch(torch.full((CLIPS, FRAMES), NO_UNIT), torch.full((CLIPS,), NO_UNIT))
    values, figures = compute_losses(codec, losses, unknown)
    assert values["phones"] == values["speaker"] == values["voice"] == 0
    assert figures["phones_right"] == figures["speakers_right"] == 0
    (values["phones"] + values["speaker"] + values["voice"]).backward()
    assert all(p.grad is None or not p.grad.any() for p in (*codec.parameters(), *losses.parameters()))


def test_the_classifier_reads_disturbed_copies_too() -> None:
    """The first half of a batch is disturbed, so its labels are used twice."""
    codec, losses = make_codec(), make_losses(Content(phones=1.0, consistency=1.0))
    phones = make_batch().phones
    phones[CLIPS // 2 :] = NO_UNIT
    inputs: list[torch.Tensor] = []
    losses.phones.register_forward_hook(lambda layer, given, out: inputs.append(given[0]))
    compute_losses(codec, losses, make_batch(phones))
    assert inputs[0].shape == (CLIPS + CLIPS // 2, FRAMES, 16)
    clean, copies = inputs[0][: CLIPS // 2], inputs[0][CLIPS:]
    assert clean.shape == copies.shape and not torch.equal(clean, copies)


def test_the_consistency_loss_trains_the_encoder_and_not_its_target() -> None:
    codec, losses = make_codec(), make_losses(Content(consistency=1.0))
    before = codec.quantizer.codebooks.clone()
    values, _ = compute_losses(codec, losses, make_batch())
    values["consistency"].backward()
    assert codec.encoder.content_project.weight.grad.any()
    assert codec.encoder.project.weight.grad is None or not codec.encoder.project.weight.grad.any()
    assert torch.equal(codec.quantizer.codebooks, before)


def test_the_agreement_loss_is_lowest_for_many_codes_that_stay() -> None:
    """It is minus the mutual information: 0 for one code everywhere, -log N for N codes that all stay."""
    book = 10.0 * torch.eye(4)
    many, one = torch.arange(4)[None], torch.zeros(1, 4, dtype=torch.int64)

    def loss(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return agreement_loss(torch.cdist(vectors, book[None]).square() / 4, codes)

    stay = loss(book[many], many)
    torch.testing.assert_close(stay, torch.tensor(-math.log(4)), atol=1e-4, rtol=0)
    torch.testing.assert_close(loss(book[one], one), torch.tensor(0.0), atol=1e-4, rtol=0)
    assert loss(book[many.roll(1)], many) > 0


def train_speaker_classifier(codec: SpeechTokenizer, losses: ContentLosses) -> None:
    """Train the speaker classifier until it is better than chance on all clips."""
    optimizer = torch.optim.Adam(losses.parameters(), 0.01)
    for _ in range(15):
        compute_losses(codec, losses, make_batch())[0]["speaker"].backward()
        optimizer.step()
        optimizer.zero_grad()


def test_the_speaker_loss_trains_the_classifier_and_the_voice_loss_the_codec() -> None:
    codec, losses = make_codec(), make_losses(Content(speaker=1.0))
    train_speaker_classifier(codec, losses)
    output, batch = codec(make_batch().waveform), make_batch()
    output.quantized.first.retain_grad()
    values, figures = losses(codec, output, batch.waveform, batch, torch.Generator())
    assert figures["speakers_right"] == 1 and values["voice"] == -values["speaker"]
    codec.zero_grad()
    values["speaker"].backward()
    assert losses.speaker.head.weight.grad.any() and output.quantized.first.grad is None
    learned = losses.speaker.head.weight.grad.clone()
    values["voice"].backward()
    assert torch.equal(losses.speaker.head.weight.grad, learned), "the copy without gradients does not learn"
    assert codec.encoder.content_project.weight.grad.any()
    gradient = output.quantized.first.grad
    assert gradient[:3].any() and not gradient[3].any(), "the speaker of the last clip is not known"
    with torch.no_grad():  # a step of the codec makes speakers harder to tell
        vectors = output.quantized.first - gradient / gradient.norm()
        nats = torch.nn.functional.cross_entropy(losses.speaker(vectors), batch.speakers, reduction="sum")
    assert nats / CLIPS > values["speaker"]


def test_misleading_the_classifier_gains_no_more_than_chance() -> None:
    codec, losses = make_codec(), make_losses(Content(speaker=1.0))
    train_speaker_classifier(codec, losses)
    wrong = make_batch(speakers=torch.tensor([1, 2, 0, NO_UNIT]))
    output = codec(wrong.waveform)
    output.quantized.first.retain_grad()
    values, figures = losses(codec, output, wrong.waveform, wrong, torch.Generator())
    assert figures["speakers_right"] == 0 and values["speaker"] > 0.75 * math.log(3)
    assert values["voice"].item() == pytest.approx(-0.75 * math.log(3)), "three of four clips"
    values["voice"].backward()
    assert not output.quantized.first.grad.any()


def test_the_speaker_classifier_takes_crops_of_any_length() -> None:
    classifier = SpeakerClassifier(16, 3)
    for frames in (2, 7, 50):
        logits = classifier(torch.randn(2, frames, 16))
        assert logits.shape == (2, 3) and torch.isfinite(logits).all()
    constant = torch.ones(2, 9, 16, requires_grad=True)
    classifier(constant).sum().backward()
    assert torch.isfinite(constant.grad).all(), "the deviation of a constant has a gradient"
