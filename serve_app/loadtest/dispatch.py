"""From options to runs, and from runs to what is printed and written."""

import json
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from serve_app.loadtest import article
from serve_app.loadtest.driver import ClosedLoop, Load, OpenLoop
from serve_app.loadtest.faults import LoadTestError, NothingDue
from serve_app.loadtest.goals import Goal, missed_goals, parse_goals
from serve_app.loadtest.options import MAX_CLIENTS, Options
from serve_app.loadtest.plots import require_matplotlib, write_plots
from serve_app.loadtest.report import goals_table, remarks, run_table, search_table, write_csv
from serve_app.loadtest.schedule import MAX_RATE_HZ, bursts, poisson, ramp, replay
from serve_app.loadtest.search import find_highest
from serve_app.loadtest.session import Run, Session
from serve_app.loadtest.target import DEFAULT_TEXTS, Target, endpoint_of

DEFAULT_SECONDS = 30.0
DEFAULT_REQUESTS = 1000
ARTICLE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """run: the one that is reported. report: the JSON of everything. held: every goal was held, and a request was
    answered."""

    run: Run
    report: dict[str, Any]
    held: bool


async def execute(options: Options, console: Console) -> Outcome:
    """Do what was asked, and print its tables. Errors: `LoadTestError`."""
    goals = parse_goals(options.goal) if options.goal is not None else ()
    if options.plots is not None:
        require_matplotlib()
    session = Session(target_of(options), texts_of(options), float(options.prebuffer_ms), console)
    load = None if options.preset or options.search else load_of(options)
    await session.warm_up(options.warmup)
    if load is not None:
        run = await session.run(load)
        outcome = Outcome(run, run.to_json(), True)
    elif options.search:
        outcome = await search(session, options, goals)
    else:
        num_requests, max_seconds = options.requests or article.NUM_REQUESTS, options.seconds or ARTICLE_SECONDS
        runs = await article.run_article(session, num_requests, max_seconds)
        for each in filter(None, (runs.one_client, runs.two_clients)):
            report_run(each, (), console)
        console.print(article.article_table(runs))
        outcome = Outcome(runs.one_client, article.article_json(runs), True)
    run = outcome.run
    if options.preset is None:
        report_run(run, goals, console)
    elif goals:
        console.print(goals_table(goals, run))
    write_files(options, run)
    has_sound = run.summary.requests > run.summary.errors
    return replace(outcome, held=outcome.held and has_sound and not missed_goals(goals, run.summary))


async def search(session: Session, options: Options, goals: tuple[Goal, ...]) -> Outcome:
    """The highest rate or number of clients that holds the goals. The run reported is the best that did, or the first
    trial if none did."""
    runs: dict[float, Run] = {}
    unit = "clients" if options.rate is None else "requests/s"

    async def holds(level: float) -> bool | None:
        varied = {"clients": int(level)} if options.rate is None else {"rate": level}
        try:
            load = load_of(replace(options, search=False, **varied))
        except NothingDue:
            if not runs:
                raise
            return None  # a rate so low cannot be tried in that time
        runs[level] = run = await session.run(load)
        if run.interrupted:
            return None
        missed = missed_goals(goals, run.summary)
        verdict = "held" if not missed else "missed " + ", ".join(goal.text for goal in missed)
        session.console.print(Text(f"{level:.4g} {unit}: {verdict}"))
        return not missed

    first, limit = (options.clients or 1, MAX_CLIENTS) if options.rate is None else (options.rate, MAX_RATE_HZ)
    result = await find_highest(holds, first, limit, whole=options.rate is None)
    session.console.print(search_table(result, unit))
    best = runs[result.highest] if result.highest is not None else next(iter(runs.values()))
    found = {
        "goal": options.goal,
        "unit": unit,
        "highest": result.highest,
        "broke": result.broke,
        "probes": [{"level": p.level, "held": p.held, "run": runs[p.level].to_json()} for p in result.probes],
    }
    return Outcome(best, best.to_json({"search": found}), result.highest is not None)


def load_of(options: Options) -> Load:
    """Errors: `LoadTestError`."""
    max_requests = options.requests or DEFAULT_REQUESTS
    max_seconds = options.seconds or DEFAULT_SECONDS
    seed = options.arrival_seed
    if options.replay is not None:
        return OpenLoop(replay(options.replay, max_seconds, max_requests), f"replay of {options.replay.name}")
    if options.rate is None:
        return ClosedLoop(options.clients or 1, max_requests, max_seconds)
    if options.burst is not None:
        arrivals = bursts(options.rate, options.burst, max_seconds, max_requests)
        pattern = f"bursts of {options.burst}, {options.rate:.4g} requests/s"
    elif options.ramp_to is not None:
        arrivals = ramp(options.rate, options.ramp_to, max_seconds, max_requests, seed)
        pattern = f"ramp from {options.rate:.4g} to {options.ramp_to:.4g} requests/s"
    else:
        arrivals = poisson(options.rate, max_seconds, max_requests, seed)
        pattern = f"Poisson, {options.rate:.4g} requests/s"
    if not arrivals:
        raise NothingDue(f"no request is due within {max_seconds:g} s at that rate; give more --seconds")
    return OpenLoop(arrivals, pattern)


def target_of(options: Options) -> Target:
    """Errors: `LoadTestError`."""
    reference: bytes | None = None
    if options.preset is not None and not (options.ref_audio is None and options.voice is not None):
        reference = article.reference_clip(options.ref_audio or article.DEFAULT_CLIP)
    elif options.ref_audio is not None:
        try:
            reference = options.ref_audio.read_bytes()
        except OSError as error:
            raise LoadTestError(f"cannot read {options.ref_audio}: {error.strerror}") from error
    return Target(
        endpoint=endpoint_of(options.url),
        model=options.model,
        voice=options.voice,
        audio_format=options.audio_format,
        pcm_rate_hz=options.sample_rate,
        api_key=options.api_key,
        instructions=options.instructions,
        reference=reference,
        reference_text=options.ref_text,
        timeout_s=options.timeout,
    )


def texts_of(options: Options) -> tuple[str, ...]:
    """Errors: `LoadTestError`."""
    if options.preset is not None:
        return (article.TEXT,)
    if options.text is not None:
        return (options.text,)
    if options.text_file is None:
        return DEFAULT_TEXTS
    try:
        lines = options.text_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LoadTestError(f"cannot read {options.text_file}: {error}") from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise LoadTestError(f"{options.text_file} holds no text")
    return texts


def report_run(run: Run, goals: tuple[Goal, ...], console: Console) -> None:
    console.print(run_table(run))
    for line in remarks(run):
        console.print(Text(line))
    if goals:
        console.print(goals_table(goals, run))


def write_files(options: Options, run: Run) -> None:
    """The CSV, the plots and the JSON that were asked for. Errors: `LoadTestError`."""
    if options.csv is not None:
        try:
            write_csv(options.csv, run.records)
        except OSError as error:
            raise LoadTestError(f"cannot write {options.csv}: {error.strerror}") from error
    if options.plots is not None:
        write_plots(options.plots, run.records)


def json_line(report: dict[str, Any]) -> str:
    """One line, without NaN."""
    return json.dumps(report, ensure_ascii=False, allow_nan=False)
