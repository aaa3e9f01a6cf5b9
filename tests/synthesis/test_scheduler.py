"""The policy, driven with a clock that the test owns."""

from collections.abc import Sequence

from serve_app.synthesis.scheduler import Limits, Playback, Progress, Scheduler, Work


def playing(stream_id: int, audio_s: float, *, tokens_needed: int = 5, utterance: int = 0) -> Progress:
    """A stream whose listener started at time 0 and has received `audio_s` seconds."""
    playback = Playback(opened_at_s=-1.0)
    playback.deliver(audio_s, now_s=0.0)
    return Progress(stream_id, playback, utterance, unread=0, tokens_needed=tokens_needed)


def silent(stream_id: int, opened_at_s: float, **progress: bool | int) -> Progress:
    """A stream whose listener has heard nothing."""
    return Progress(stream_id, Playback(opened_at_s), 0, **progress)  # type: ignore[arg-type]


def test_no_stream_means_no_batch() -> None:
    assert Scheduler(Limits()).next_batch([], 0.0) is None


def test_a_new_stream_is_prefilled_then_decoded_then_rendered() -> None:
    scheduler, stream = Scheduler(Limits()), silent(1, 0.0)
    steps = []
    for _ in range(3):
        batch = scheduler.next_batch([stream], 0.0)
        assert batch is not None
        steps.append(batch.work)
        if batch.work is Work.PREFILL:
            stream.unread = 0
        else:
            stream.tokens_needed -= 1
    assert steps == [Work.PREFILL, Work.DECODE, Work.RENDER]


def test_who_runs_dry_comes_before_who_has_heard_nothing_before_who_has_plenty() -> None:
    dry, fresh, rich = playing(1, 0.2), silent(2, 0.0, unread=0, tokens_needed=0), playing(3, 9.0)
    scheduler = Scheduler(Limits(urgent_s=0.3))
    ordered = sorted([rich, fresh, dry], key=lambda p: scheduler.urgency(p, now_s=0.0, urgent_s=0.3))
    assert [p.stream_id for p in ordered] == [1, 2, 3]
    batch = scheduler.next_batch([rich, fresh, dry], 0.0)
    assert batch is not None and batch.work is Work.DECODE and batch.stream_ids[0] == 1


def test_listeners_whose_round_takes_longer_than_they_have_in_hand_come_before_a_newcomer() -> None:
    listeners, newcomer = [playing(number, 0.7) for number in range(4)], silent(9, 0.0)
    calm = Scheduler(Limits(), lambda listeners: 0.15 * listeners).next_batch([*listeners, newcomer], 0.0)
    assert calm is not None and calm.stream_ids[0] == 9, "0.6 s for all of them: they can wait"
    busy = Scheduler(Limits(), lambda listeners: 0.2 * listeners).next_batch([*listeners, newcomer], 0.0)
    assert busy is not None and 9 not in busy.stream_ids, "0.8 s: the last of them would run dry"


def test_a_newcomer_goes_before_listeners_who_can_wait_and_after_those_who_cannot() -> None:
    def first(can_wait: bool | None, *streams: Progress) -> int:
        def known(streams: Sequence[Progress], newcomer: Progress, now_s: float) -> bool | None:
            return can_wait

        batch = Scheduler(Limits(urgent_s=0.3), can_wait=known).next_batch(streams, 0.0)
        assert batch is not None
        return batch.stream_ids[0]

    hurried, rich, newcomer = playing(1, 0.2), playing(2, 0.5), silent(9, 0.0)
    assert [first(can_wait, rich, newcomer, hurried) for can_wait in (None, True, False)] == [1, 9, 1]
    assert [first(can_wait, rich, newcomer) for can_wait in (None, True, False)] == [9, 9, 2]


def test_the_newcomer_that_is_asked_for_is_the_one_whose_turn_it_is() -> None:
    asked: list[int] = []

    def can_wait(streams: Sequence[Progress], newcomer: Progress, now_s: float) -> bool:
        asked.append(newcomer.stream_id)
        return True

    scheduler = Scheduler(Limits(), can_wait=can_wait)
    decoding, reading = silent(1, 0.0, unread=0), silent(2, 1.0)
    batch = scheduler.next_batch([decoding, reading, playing(3, 0.1)], 2.0)
    assert asked == [2] and batch is not None and batch.stream_ids == (2,)
    asked.clear()
    scheduler.next_batch([playing(3, 0.1)], 2.0)
    assert asked == [], "nobody is new"


def test_a_chunk_that_a_newcomer_must_wait_for_is_not_put_off_to_be_rendered_with_others() -> None:
    scheduler = Scheduler(Limits(render=2, urgent_s=0.3), can_wait=lambda streams, newcomer, now_s: False)
    ready, almost, newcomer = playing(1, 0.5, tokens_needed=0), playing(2, 0.6, tokens_needed=1), silent(9, 0.0)
    batch = scheduler.next_batch([ready, almost, newcomer], 0.0)
    assert batch is not None and (batch.work, batch.stream_ids) == (Work.RENDER, (1,))


def test_first_chunks_are_served_in_order_of_arrival() -> None:
    late, early = silent(1, 5.0), silent(2, 3.0)
    batch = Scheduler(Limits(prefill=1)).next_batch([late, early], 6.0)
    assert batch is not None and batch.stream_ids == (2,)


def test_later_utterances_of_a_listener_wait_for_earlier_ones() -> None:
    first = playing(1, 1.0, tokens_needed=0)
    second = Progress(2, first.playback, 1, unread=0, tokens_needed=0)
    batch = Scheduler(Limits(render=1)).next_batch([second, first], 0.0)
    assert batch is not None and batch.stream_ids == (1,)


def test_streams_that_can_share_a_batch_join_it() -> None:
    streams = [playing(i, 1.0 + i) for i in range(5)]
    batch = Scheduler(Limits(decode=4)).next_batch(streams, 0.0)
    assert batch is not None and batch.work is Work.DECODE and batch.stream_ids == (0, 1, 2, 3)


def test_decoding_joins_only_within_its_lead_over_rendering() -> None:
    needy, ahead = playing(1, 1.0, tokens_needed=3), playing(2, 2.0, tokens_needed=-50)
    batch = Scheduler(Limits(token_lead=50)).next_batch([needy, ahead], 0.0)
    assert batch is not None and batch.stream_ids == (1,)
    ahead.tokens_needed = -49
    batch = Scheduler(Limits(token_lead=50)).next_batch([needy, ahead], 0.0)
    assert batch is not None and batch.stream_ids == (1, 2)


def test_a_generated_stream_renders_its_last_chunk_without_lookahead() -> None:
    last = playing(1, 1.0, tokens_needed=12)
    last.generated = True
    batch = Scheduler(Limits()).next_batch([last], 0.0)
    assert batch is not None and batch.work is Work.RENDER


def test_chunks_that_nobody_waits_for_are_rendered_together() -> None:
    scheduler = Scheduler(Limits(render=2, urgent_s=0.3))
    ready, almost = playing(1, 5.0, tokens_needed=0), playing(2, 6.0, tokens_needed=1)
    batch = scheduler.next_batch([ready, almost], 0.0)
    assert batch is not None and batch.work is Work.DECODE
    almost.tokens_needed = 0
    batch = scheduler.next_batch([ready, almost], 0.0)
    assert batch is not None and (batch.work, batch.stream_ids) == (Work.RENDER, (1, 2))
    almost.tokens_needed = 1
    batch = scheduler.next_batch([ready, almost], now_s=4.9)
    assert batch is not None and (batch.work, batch.stream_ids) == (Work.RENDER, (1,))


def test_a_listener_far_ahead_waits_until_its_lead_is_used_up() -> None:
    scheduler, ahead = Scheduler(Limits(max_lead_s=10.0)), playing(1, 12.0)
    assert scheduler.next_batch([ahead], now_s=1.0) is None
    assert scheduler.wait_s([ahead], now_s=1.0) == 1.0
    assert scheduler.next_batch([ahead], now_s=2.0) is not None
    assert scheduler.wait_s([ahead, silent(2, 0.0)], now_s=1.0) == 0.0
    assert scheduler.wait_s([], now_s=1.0) is None


def longest_silence_s(prefill_chunk: int) -> float:
    """What a listener with half a second in hand misses while a prompt of 640 positions, one second of work, is read.

    A decode step takes 10 ms, a chunk of 15 tokens 50 ms.
    """
    scheduler = Scheduler(Limits(prefill_chunk=prefill_chunk, urgent_s=0.3))
    listener, newcomer = playing(1, 0.5, tokens_needed=15), silent(2, 0.0, unread=640)
    now_s, silence_s = 0.0, 0.0
    while newcomer.unread:
        batch = scheduler.next_batch([listener, newcomer], now_s)
        assert batch is not None
        if batch.work is Work.PREFILL:
            now_s += batch.positions / 640
            newcomer.unread = max(0, newcomer.unread - batch.positions)
        elif batch.work is Work.DECODE:
            now_s += 0.01
            listener.tokens_needed -= 1
        else:
            now_s += 0.05
            silence_s = max(silence_s, now_s - listener.playback.dry_at_s())
            listener.playback.deliver(1.0, now_s)
            listener.tokens_needed = 15
    return max(silence_s, now_s - listener.playback.dry_at_s())


def test_a_long_prompt_that_is_read_in_pieces_leaves_nobody_without_sound() -> None:
    assert longest_silence_s(prefill_chunk=32) == 0
    assert longest_silence_s(prefill_chunk=640) > 0.4


def test_a_stream_that_waits_for_text_renders_what_it_has_and_then_takes_no_part() -> None:
    scheduler, waiting = Scheduler(Limits()), playing(1, -5.0, tokens_needed=0)
    waiting.waiting = True
    batch = scheduler.next_batch([waiting], 0.0)
    assert batch is not None and batch.work is Work.RENDER
    waiting.tokens_needed = 20
    assert scheduler.next_batch([waiting], 0.0) is None and scheduler.wait_s([waiting], 0.0) is None
    other = playing(2, 1.0)
    batch = scheduler.next_batch([waiting, other], 0.0)
    assert batch is not None and batch.stream_ids == (2,)
    assert scheduler.wait_s([waiting, other], 0.0) == 0.0


def test_a_listener_who_ran_dry_goes_on_from_the_next_sound() -> None:
    playback = Playback(0.0)
    playback.deliver(1.0, now_s=1.0)
    assert playback.dry_at_s() == 2.0
    playback.deliver(1.0, now_s=1.5)
    assert playback.dry_at_s() == 3.0
    playback.deliver(0.5, now_s=10.0)
    assert playback.dry_at_s() == 10.5


def test_beside_a_render_the_language_model_goes_on_for_the_most_urgent() -> None:
    """Also for those whose next chunk could be rendered, which is the next render's."""
    scheduler = Scheduler(Limits(token_lead=50))
    ready, needy = playing(1, 0.1, tokens_needed=-10), playing(2, 2.0, tokens_needed=4)
    batch = scheduler.next_batch([needy, ready], 0.0)
    assert batch is not None and batch.work is Work.RENDER
    batch = scheduler.next_batch([needy, ready], 0.0, may_render=False)
    assert batch is not None and batch.work is Work.DECODE and batch.stream_ids == (1, 2)
    introduced = silent(3, 0.0, unread=40, tokens_needed=-20)  # chunks of its voice's prompt are there
    batch = scheduler.next_batch([needy, introduced], 0.0, may_render=False)
    assert batch is not None and batch.work is Work.PREFILL and batch.stream_ids == (3,)


def test_beside_a_render_nobody_is_decoded_further_ahead_than_ever() -> None:
    scheduler = Scheduler(Limits(token_lead=50, max_lead_s=5.0))
    ahead, done = playing(1, 0.1, tokens_needed=-50), playing(2, 0.1)
    done.generated = True
    waiting = silent(3, 0.0, unread=3, waiting=True)
    rich = playing(4, 9.0)
    assert scheduler.next_batch([ahead, done, waiting, rich], 0.0, may_render=False) is None
