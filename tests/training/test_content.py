from __future__ import annotations

import math

import pytest
import torch

from conftest import make_tiny
from vocable.codec.config import SpectralConfig
from vocable.codec.model import SpeechTokenizer
from vocable.semantic.distillation import NO_UNIT
from vocable.training import content
from vocable.training.codebooks import CodebookEMA
from vocable.training.content import ContentLosses, SpeakerClassifier, _Reverse
from vocable.training.data import Batch
from vocable.training.disturb import Disturber
from vocable.training.recipe import Content

CLIPS, FRAMES = 4, 12
ALL = Content(phones=1.0, consistency=1.0, speaker=0.5)


def make_codec() -> SpeechTokenizer:
    blocks = {f"{side}_{rate}_blocks": 1 for side in ("encoder", "decoder") for rate in ("fine", "frame")}
    spectral = SpectralConfig(fine_dim=16, frame_dim=16, expansion=2, content_blocks=1, **blocks)
    return make_tiny(spectral=spectral, dimension=16, num_quantizers=2).train()


def make_losses(recipe: Content = ALL, speakers: int = 3) -> ContentLosses:
    torch.manual_seed(1)
    return ContentLosses(recipe, 16, 5, speakers, Disturber(16_000, [], torch.device("cpu")))


def make_batch(phones: torch.Tensor | None = None, speakers: torch.Tensor | None = None) -> Batch:
    """Each clip is a tone, which its phones and its speaker follow from."""
    time = torch.arange(FRAMES * 320) / 16_000
    tones = torch.stack([0.3 * torch.sin(2 * math.pi * (200 + 400 * i) * time) for i in range(CLIPS)])
    if phones is None:
        phones = torch.arange(CLIPS)[:, None].expand(-1, FRAMES).clone()
        phones[:, -2:] = NO_UNIT
    speakers = torch.tensor([0, 1, 2, NO_UNIT]) if speakers is None else speakers
    return Batch(tones, None, torch.full((CLIPS,), 2), phones, speakers)


def look(
    codec: SpeechTokenizer, losses: ContentLosses, batch: Batch, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    output = codec(batch.waveform, num_layers=batch.num_layers)
    return losses(codec, output, batch.waveform, batch, torch.Generator().manual_seed(seed))


def test_what_the_recipe_asks_for_is_there() -> None:
    codec, batch = make_codec(), make_batch()
    for recipe, names, shown in (
        (Content(phones=1.0), {"phones"}, {"phones_right"}),
        (Content(consistency=1.0), {"consistency"}, {"kept"}),
        (Content(speaker=1.0), {"speaker"}, {"speakers_right"}),
        (Content(consistency=1.0, disturbed=0.0, phones=1.0), {"phones"}, {"phones_right"}),
        (ALL, {"phones", "consistency", "speaker"}, {"phones_right", "kept", "speakers_right"}),
    ):
        losses, figures = look(codec, make_losses(recipe), batch)
        assert set(losses) == names and set(figures) == shown
        assert all(loss.shape == () and torch.isfinite(loss) and loss.requires_grad for loss in losses.values())
        assert all(0 <= figure <= 1 and not figure.requires_grad for figure in figures.values())


def test_losses_fall() -> None:
    """Phones can be told; the classifier learns to tell speakers where nobody works against it."""
    codec, losses = make_codec(), make_losses(Content(phones=1.0, consistency=1.0, speaker=1e-6))
    latents = codec.encoder(make_batch().waveform).detach().flatten(0, 1)
    CodebookEMA(codec.quantizer).kmeans_start(latents, 3, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam([*codec.parameters(), *losses.parameters()], 0.02)
    found: list[dict[str, float]] = []
    for step in range(25):
        values, figures = look(codec, losses, make_batch(), seed=step)
        sum(values.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append({name: float(value.detach()) for name, value in (values | figures).items()})
    for name, part in (("phones", 0.6), ("speaker", 0.6)):
        assert found[-1][name] < part * found[0][name], name
    assert found[-1]["phones_right"] > found[0]["phones_right"] and found[-1]["speakers_right"] == 1
    tail = [sum(step["consistency"] for step in part) for part in (found[:5], found[-5:])]
    assert tail[1] < tail[0]


def test_without_labels_losses_are_0_and_figures_numbers() -> None:
    codec, losses = make_codec(), make_losses()
    unknown = make_batch(torch.full((CLIPS, FRAMES), NO_UNIT), torch.full((CLIPS,), NO_UNIT))
    values, figures = look(codec, losses, unknown)
    assert values["phones"] == values["speaker"] == 0
    assert figures["phones_right"] == figures["speakers_right"] == 0
    (values["phones"] + values["speaker"]).backward()
    assert all(p.grad is None or not p.grad.any() for p in (*codec.parameters(), *losses.parameters()))


def test_the_classifier_reads_disturbed_copies_too() -> None:
    """The first half of a batch: labels of the other clips count once, theirs twice."""
    codec, losses = make_codec(), make_losses(Content(phones=1.0, consistency=1.0))
    phones = make_batch().phones
    phones[CLIPS // 2 :] = NO_UNIT
    heard: list[torch.Tensor] = []
    losses.phones.register_forward_hook(lambda layer, given, out: heard.append(given[0]))
    look(codec, losses, make_batch(phones))
    assert heard[0].shape == (CLIPS + CLIPS // 2, FRAMES, 16)
    clean, copies = heard[0][: CLIPS // 2], heard[0][CLIPS:]
    assert clean.shape == copies.shape and not torch.equal(clean, copies)


def test_consistency_pulls_at_the_encoder_and_not_at_its_target() -> None:
    codec, losses = make_codec(), make_losses(Content(consistency=1.0))
    before = codec.quantizer.codebooks.clone()
    values, _ = look(codec, losses, make_batch())
    values["consistency"].backward()
    assert codec.encoder.content_project.weight.grad.any()
    assert codec.encoder.project.weight.grad is None or not codec.encoder.project.weight.grad.any()
    assert torch.equal(codec.quantizer.codebooks, before)


def test_the_speakers_gradient_is_reversed() -> None:
    """What is a step towards telling speakers for the classifier is a step away from it for the encoder."""
    x = torch.randn(4, 5, requires_grad=True)
    weights = torch.randn(4, 5)
    (_Reverse.apply(x, 0.3) * weights).sum().backward()
    torch.testing.assert_close(x.grad, -0.3 * weights)
    assert torch.equal(_Reverse.apply(x, 0.3), x)

    codec, batch = make_codec(), make_batch()
    gradients = {}
    for factor in (0.5, 1.0):
        losses = make_losses(Content(speaker=factor))
        losses.speaker.head.weight.data *= 0.1  # no clip is told worse than by chance by much
        codec.zero_grad()
        values, _ = look(codec, losses, batch)
        values["speaker"].backward()
        gradients[factor] = codec.encoder.content_project.weight.grad.clone(), losses.speaker.head.weight.grad.clone()
    assert gradients[1.0][0].any()
    torch.testing.assert_close(gradients[1.0][0], 2 * gradients[0.5][0])
    torch.testing.assert_close(gradients[1.0][1], gradients[0.5][1])


def test_a_step_of_the_encoder_misleads_the_classifier() -> None:
    codec, batch, losses = make_codec(), make_batch(), make_losses(Content(speaker=1.0))
    optimizer = torch.optim.Adam(losses.parameters(), 0.01)
    for _ in range(15):  # so that all clips are told better than by chance
        look(codec, losses, batch)[0]["speaker"].backward()
        optimizer.step()
        optimizer.zero_grad()
    codec.zero_grad()
    latents = codec.encoder(batch.waveform).detach().requires_grad_()

    def told() -> torch.Tensor:
        vectors = codec.quantizer(latents).first
        logits = losses.speaker(_Reverse.apply(vectors, 1.0))
        return torch.nn.functional.cross_entropy(logits, batch.speakers, ignore_index=NO_UNIT)

    nats = told()
    nats.backward()
    # Straight-through: a step of the latents is one of the vectors. Followed here without the quantizer, whose codes
    # stay where they are for a small step.
    vectors = codec.quantizer(latents).first.detach() - 0.1 * latents.grad
    after = torch.nn.functional.cross_entropy(losses.speaker(vectors), batch.speakers, ignore_index=NO_UNIT)
    assert after > nats


def test_the_speaker_classifier_takes_crops_of_any_length() -> None:
    classifier = SpeakerClassifier(16, 3)
    for frames in (2, 7, 50):
        logits = classifier(torch.randn(2, frames, 16))
        assert logits.shape == (2, 3) and torch.isfinite(logits).all()
    constant = torch.ones(2, 9, 16, requires_grad=True)
    classifier(constant).sum().backward()
    assert torch.isfinite(constant.grad).all(), "the deviation of a constant has a gradient"


@pytest.mark.skipif(not hasattr(content, "_better_than_chance"), reason="the loss is not bounded yet")
def test_the_speaker_loss_is_no_more_than_that_of_chance() -> None:
    bounded = content._better_than_chance
    logits = torch.tensor([[4.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 9.0]], requires_grad=True)
    plain = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2]), reduction="none")
    loss = bounded(logits, torch.tensor([0, 1, NO_UNIT]))
    assert plain[1] > math.log(3) > plain[0]
    torch.testing.assert_close(loss, (plain[0] + math.log(3)) / 2)
    loss.backward()
    assert logits.grad[0].any() and not logits.grad[1:].any(), "a clip that is told worse than by chance pulls nowhere"
    assert bounded(logits, torch.full((3,), NO_UNIT)) == 0
    told_wrong = 100 * torch.eye(3)[[1, 2, 0]]
    assert bounded(told_wrong, torch.arange(3)).item() == pytest.approx(math.log(3))
