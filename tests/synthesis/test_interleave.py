"""What is read when text arrives piece by piece: a function of the text alone."""

from collections.abc import Sequence

import pytest

from serve_app.synthesis.interleave import START, TASK, Interleave, Reading, Table

TEXT_BLOCK, SPEECH_BLOCK = 5, 15


def make(num_prompt_text: int = 4, num_prompt_speech: int = 37) -> Interleave:
    prompt_text = list(range(100, 100 + num_prompt_text))
    return Interleave(TEXT_BLOCK, SPEECH_BLOCK, prompt_text, list(range(num_prompt_speech)))


def read_all(interleave: Interleave, pieces: Sequence[Sequence[int]]) -> list[Reading]:
    """Everything that is read when the model asks at once whenever it can."""
    readings = []
    for piece in pieces:
        interleave.feed(piece)
        while (reading := interleave.next_reading([])) is not None:
            readings.append(reading)
    interleave.ended = True
    while not interleave.complete:
        reading = interleave.next_reading([])
        assert reading is not None, "after the end nothing is waited for"
        readings.append(reading)
    return readings


def text_of(readings: Sequence[Reading]) -> list[int]:
    return [token for reading in readings for table, ids in reading if table is Table.TEXT for token in ids]


def test_the_prompt_is_laid_out_in_blocks_and_the_rest_of_the_text_stands_before_the_task() -> None:
    text = list(range(200, 218))
    first, *blocks, last = read_all(make(), [text])
    assert first[0] == (Table.MARK, START)
    assert [table for table, _ in first[1:]] == [Table.TEXT, Table.SPEECH] * 3
    assert [len(ids) for _, ids in first[1:]] == [5, 15, 5, 15, 5, 7]
    assert [[(table, len(ids)) for table, ids in block] for block in blocks] == [[(Table.TEXT, 5)]]
    assert last[-1] == (Table.MARK, TASK)
    assert text_of([first, *blocks, last]) == [100, 101, 102, 103, *text]


@pytest.mark.parametrize("num_text", [11, 15, 16, 17, 40])
@pytest.mark.parametrize(("num_prompt_text", "num_prompt_speech"), [(4, 37), (4, 30), (0, 0), (12, 0), (60, 20)])
def test_how_the_text_is_cut_does_not_matter(num_text: int, num_prompt_text: int, num_prompt_speech: int) -> None:
    text = list(range(200, 200 + num_text))
    whole = read_all(make(num_prompt_text, num_prompt_speech), [text])
    for size in (1, 2, 7):
        pieces = [text[start : start + size] for start in range(0, num_text, size)]
        assert read_all(make(num_prompt_text, num_prompt_speech), pieces) == whole
    assert text_of(whole) == [*range(100, 100 + num_prompt_text), *text]


def test_text_that_ends_before_the_prompt_is_laid_out_is_read_like_any_other() -> None:
    interleave = make()
    interleave.feed([200, 201])
    assert interleave.next_reading([]) is None
    interleave.ended = True
    assert interleave.next_reading([]) == (
        (Table.MARK, START),
        (Table.TEXT, [100, 101, 102, 103, 200, 201]),
        (Table.MARK, TASK),
        (Table.SPEECH, list(range(37))),
    )
    assert interleave.complete


@pytest.mark.parametrize(("num_prompt_speech", "first_fill"), [(0, 15), (37, 8), (30, 15), (44, 1)])
def test_the_first_request_for_text_fills_the_prompts_last_block(num_prompt_speech: int, first_fill: int) -> None:
    interleave = make(num_prompt_speech=num_prompt_speech)
    assert interleave.next_fill == first_fill
    interleave.ask(first_fill + 1)
    assert interleave.next_fill == first_fill + 1 + SPEECH_BLOCK
