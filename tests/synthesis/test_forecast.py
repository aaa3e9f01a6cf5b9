"""When the next chunks will be there: arithmetic over measured costs."""

from serve_app.synthesis.capacity import Capacity, StepCosts
from serve_app.synthesis.caution import MOST, Promise
from serve_app.synthesis.caution import USUAL as CAUTION
from serve_app.synthesis.forecast import Forecast
from serve_app.synthesis.scheduler import Limits, Playback, Progress, Work

PREFILL_S, DECODE_S, RENDER_S = 0.02, 0.004, 0.08


def forecast(*, render: int = 1, slower: float = 1.0) -> Forecast:
    costs = {Work.PREFILL: {1: PREFILL_S}, Work.DECODE: {1: DECODE_S, 64: DECODE_S}, Work.RENDER: {1: RENDER_S}}
    if render > 1:
        costs[Work.RENDER][render] = RENDER_S
    table = {work: {size: slower * cost for size, cost in sizes.items()} for work, sizes in costs.items()}
    return Forecast(Capacity(StepCosts(table=table), Limits(render=render)))


def playing(stream_id: int, in_hand_s: float, tokens_needed: int = 25) -> Progress:
    playback = Playback(opened_at_s=-1.0)
    playback.deliver(in_hand_s, now_s=0.0)
    return Progress(stream_id, playback, 0, unread=0, tokens_needed=tokens_needed)


def silent(stream_id: int, opened_at_s: float = 0.0, *, unread: int = 0, tokens_needed: int = 0) -> Progress:
    return Progress(stream_id, Playback(opened_at_s), 0, unread=unread, tokens_needed=tokens_needed)


def lasts(by: Forecast, first: Progress, audio_s: float, streams: list[Progress], now_s: float = 0.0) -> bool:
    next_chunk_s = by.next_chunk_s(first, audio_s, streams, now_s)
    assert next_chunk_s is not None, "holding it is of use"
    return by.lasts(audio_s, next_chunk_s)


def just_enough_s(num_tokens: int, num_renders: int, num_prompts: int = 0) -> float:
    return CAUTION * (num_prompts * PREFILL_S + num_tokens * DECODE_S + num_renders * RENDER_S)


def test_a_listener_waits_for_a_first_sound_if_the_next_chunk_comes_in_time_all_the_same() -> None:
    newcomer = silent(9)
    enough_s = just_enough_s(25, 2)  # the chunk, and the first sound before it
    for in_hand_s, can_wait in ((enough_s + 0.001, True), (enough_s - 0.001, False)):
        assert forecast().can_wait([playing(1, in_hand_s), newcomer], newcomer, 0.0) is can_wait


def test_the_last_of_several_listeners_must_not_run_dry_either() -> None:
    newcomer, enough_s = silent(9), just_enough_s(25, 3)
    for in_hand_s, can_wait in ((enough_s + 0.001, True), (enough_s - 0.001, False)):
        listeners = [playing(1, enough_s - RENDER_S), playing(2, in_hand_s)]
        assert forecast().can_wait([*listeners, newcomer], newcomer, 0.0) is can_wait
    together = [playing(1, just_enough_s(25, 2) + 0.001), playing(2, just_enough_s(25, 2) + 0.001)]
    assert forecast(render=2).can_wait([*together, newcomer], newcomer, 0.0), "both chunks are rendered at once"


def test_a_step_of_a_newcomer_counts_as_what_it_costs_and_as_nothing_is_known_nothing_is_said() -> None:
    reading = silent(9, unread=100, tokens_needed=12)
    enough_s = just_enough_s(25, 1, num_prompts=1)
    assert forecast().can_wait([playing(1, enough_s + 0.001), reading], reading, 0.0)
    assert not forecast().can_wait([playing(1, enough_s - 0.001), reading], reading, 0.0)
    assert Forecast(Capacity(StepCosts(), Limits())).can_wait([playing(1, 9.0), reading], reading, 0.0) is None
    assert forecast(slower=9).can_wait([playing(1, 9.0), reading], reading, 0.0) is None, "it cannot keep up anyway"


def test_of_a_listener_with_two_utterances_the_one_that_plays_counts() -> None:
    newcomer, current = silent(9), playing(1, 1.0)
    ahead = Progress(2, current.playback, 1, unread=0, tokens_needed=200)
    assert forecast().can_wait([ahead, current, newcomer], newcomer, 0.0)


def test_a_first_sound_lasts_if_the_next_chunk_comes_before_its_end() -> None:
    first = silent(1, tokens_needed=25)
    enough_s = just_enough_s(25, 1)
    assert lasts(forecast(), first, enough_s + 0.001, [first])
    assert not lasts(forecast(), first, enough_s - 0.001, [first])
    first.tokens_needed = 5
    assert lasts(forecast(), first, just_enough_s(5, 1) + 0.001, [first]), "later less is missing"


def test_whoever_gets_a_chunk_before_counts() -> None:
    first, enough_s = silent(1, opened_at_s=1.0, tokens_needed=25), just_enough_s(25, 1) + 0.001
    rich, later = playing(2, 9.0), silent(3, opened_at_s=2.0, tokens_needed=25)
    assert lasts(forecast(), first, enough_s, [first, rich, later])
    for before in (playing(2, 0.1), silent(3, opened_at_s=2.0, tokens_needed=12), silent(3, tokens_needed=25)):
        assert not lasts(forecast(), first, enough_s, [first, before])
        assert lasts(forecast(), first, enough_s + CAUTION * RENDER_S, [first, before])


def test_of_two_first_sounds_that_would_end_together_one_counts_for_the_other() -> None:
    audio_s, now_s = just_enough_s(25, 1) + 0.001, 5.0
    heard, held = silent(1, tokens_needed=25), silent(2, tokens_needed=25)
    heard.playback.deliver(audio_s, now_s)
    assert not lasts(forecast(), held, audio_s, [heard, held], now_s)


def test_where_holding_is_of_no_use_a_first_sound_goes_out() -> None:
    fed = silent(1, tokens_needed=25)
    fed.waiting = True
    assert forecast().next_chunk_s(fed, 0.01, [fed], 0.0) is None, "only its client can go on"
    first = silent(1, tokens_needed=25)
    assert forecast(slower=9).next_chunk_s(first, 0.01, [first], 0.0) is None, "it will run dry anyway"


def test_after_a_chunk_that_came_late_first_sounds_must_last_longer_and_listeners_have_more_in_hand() -> None:
    by, first, newcomer = forecast(), silent(1, tokens_needed=25), silent(9)
    enough_s = just_enough_s(25, 2) + 0.001
    assert lasts(by, first, just_enough_s(25, 1) + 0.001, [first])
    assert by.can_wait([playing(1, enough_s), newcomer], newcomer, 0.0)
    by.caution.learn(Promise(made_at_s=1.0, expected_s=0.1), now_s=1.2)
    assert not lasts(by, first, just_enough_s(25, 1) + 0.001, [first])
    assert lasts(by, first, MOST / CAUTION * just_enough_s(25, 1) + 0.001, [first])
    assert not by.can_wait([playing(1, enough_s), newcomer], newcomer, 0.0)


def test_more_streams_than_a_batch_holds_take_turns() -> None:
    many = [silent(number, tokens_needed=25) for number in range(1, 129)]
    costs = StepCosts(table={Work.PREFILL: {}, Work.DECODE: {64: DECODE_S}, Work.RENDER: {1: 0.0001}})
    slow = Forecast(Capacity(costs, Limits(decode=64)))
    both_turns_s = CAUTION * (2 * 25 * DECODE_S + 0.0001)
    assert lasts(slow, many[0], both_turns_s + 0.001, many)
    assert not lasts(slow, many[0], both_turns_s - 0.001, many)
