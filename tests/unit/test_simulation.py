"""The simulation: scenarios that make no sense, traffic that is what it says, and runs that come out again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from alerts.guardrails import EVENTS, Event
from alerts.simulation.plot import draw
from alerts.simulation.run import simulate
from alerts.simulation.scenario import Fault, InvalidScenario, read_scenario
from alerts.simulation.summary import summary_of
from alerts.simulation.traffic import Streams
from proxy.cli import main

TRAFFIC = "[traffic]\nrequests_per_second = 40\nusers = 2000\nstages = [[25, 1]]\n"
FAILS = '[[fault]]\nat_hour = 0.5\nkind = "errors"\nrate = 0.5\n'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hours = 0", "$.hours"),
        ("[traffic]\nspeed = 1", "speed"),
        ("[traffic]\nusers = 0", "$.traffic.users"),
        ("[traffic]\nstages = [[25, 1], [5, 1]]", "$.traffic.stages"),
        ("[traffic]\nusers = 10\nstages = [[5, 1]]", "$.traffic.users"),
        ("[candidate]\nerror_rate = 2", "$.candidate.error_rate"),
        ('[[fault]]\nat_hour = 1\nkind = "latency"', "$.fault[0].factor"),
        ('[[fault]]\nat_hour = 1\nkind = "flood"', "$.fault[0].kind"),
        ('hours = 1\n[[fault]]\nat_hour = 2\nkind = "no_traffic"', "$.fault[0].at_hour"),
        ('[[guardrail]]\nname = "speed"', "$.guardrail[0].name"),
        ('[[guardrail]]\nname = "errors"\nlimit = 0', "$.guardrail[0].limit"),
        ("no toml", ""),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_by_the_name_of_its_field(text: str, place: str) -> None:
    with pytest.raises(InvalidScenario) as refused:
        read_scenario(text)
    assert place in str(refused.value)


def test_an_override_that_makes_no_sense_is_refused_before_anything_runs() -> None:
    scenario = read_scenario(TRAFFIC + '[[guardrail]]\nname = "errors"\nlimit = 3.0\n')
    with pytest.raises(InvalidScenario, match="errors"):
        simulate(scenario, 1, 1)


def test_the_same_seed_is_the_same_traffic_however_many_processes() -> None:
    scenario = read_scenario(
        "hours = 0.1\n" + TRAFFIC.replace("[[25, 1]]", "[[25, 1]]") + "[candidate]\nerror_rate = 0.2\n"
    )
    one, two, other = simulate(scenario, 60, 7), simulate(scenario, 60, 7, jobs=2), simulate(scenario, 60, 8)
    assert one.rules[0].at_second == two.rules[0].at_second
    assert one.rules[0].at_second != other.rules[0].at_second


def test_traffic_is_split_as_told_and_fails_as_told() -> None:
    scenario = read_scenario(TRAFFIC + "[candidate]\nerror_rate = 0.1\n[control]\nerror_rate = 0.02\n")
    streams = Streams(scenario, 20, 3, 0.15)
    block = streams.block(0, np.full(20, 25.0), np.full(20, np.nan))
    requests = block.minute.requests.sum(0)
    assert requests[1] / requests.sum() == pytest.approx(0.25, abs=0.01)
    assert block.minute.errors.sum(0) / requests == pytest.approx([0.02, 0.1], abs=0.01)
    assert sum(tick.trials[:, 1, EVENTS.index(Event.SLOW_RELATIVE)].sum() for tick in block.ticks) == 0


def test_users_of_the_candidate_stay_in_when_the_share_rises() -> None:
    streams = Streams(read_scenario(TRAFFIC), 1, 3, 0.15)
    small = set(streams._users(1, np.full(5000, 5.0)).tolist())
    large = set(streams._users(1, np.full(50000, 25.0)).tolist())
    assert small <= large
    assert {user % 100 for user in small} == set(range(5))
    assert not large & set(streams._users(0, np.full(50000, 25.0)).tolist())


def test_users_are_as_alike_as_told() -> None:
    streams = Streams(read_scenario(TRAFFIC + "heavy_user_icc = 0.2\n[candidate]\nerror_rate = 0.1\n"), 30, 3, 0.15)
    own = streams._propensity[1, Event.ERROR]
    assert own is not None
    assert own.mean() == pytest.approx(0.1, abs=0.005)
    assert own.var() / (0.1 * 0.9) == pytest.approx(0.2, abs=0.01)


def test_a_fault_comes_on_slowly_and_goes_away_again() -> None:
    fault = Fault(at_hour=1, kind="errors", rate=1.0, ramp_minutes=10, recovers_after_minutes=30)
    assert fault.strength(3599) == 0
    assert fault.strength(3600 + 299) == pytest.approx(0.5)
    assert fault.strength(3600 + 600) == 1
    assert fault.strength(3600 + 1800) == 0


def test_a_fault_is_found_at_once_and_a_healthy_candidate_left_alone() -> None:
    result = simulate(read_scenario(TRAFFIC + FAILS), 20, 1)
    ours = summary_of(result)["rules"][0]
    assert (ours["false_rollbacks"], ours["missed"], ours["rollbacks"]) == (0, 0, 20)
    assert ours["seconds_to_verdict"]["median"] <= 3
    assert set(ours["verdicts_by_guardrail"]) <= {"errors", "errors_relative"}
    assert result.final_share_percent == [0] * 20


@pytest.mark.parametrize("kind", ["no_traffic", "split"])
def test_what_is_wrong_with_the_traffic_never_rolls_back(kind: str) -> None:
    fault = f'[[fault]]\nat_hour = 0.5\nkind = "{kind}"\nfactor = 3\n'
    result = simulate(read_scenario(TRAFFIC + fault), 10, 1)
    assert summary_of(result)["rules"][0]["verdicts_by_guardrail"] == {}


def test_a_wrong_split_is_noticed_from_the_start() -> None:
    fault = '[[fault]]\nat_hour = 0.0\nkind = "split"\nfactor = 3\n'
    assert simulate(read_scenario(TRAFFIC + fault), 10, 1).held["split"] == 10


def test_stages_are_passed_by_evidence_and_not_by_time_alone() -> None:
    stages = TRAFFIC.replace("[[25, 1]]", "[[25, 1], [50, 1]]")
    assert set(simulate(read_scenario(stages), 5, 1).final_share_percent) == {50}
    unproved = simulate(
        read_scenario(stages + "[candidate]\nerror_rate = 0.0099\n[control]\nerror_rate = 0.0099\n"), 5, 1
    )
    assert set(unproved.final_share_percent) == {25}
    assert unproved.held["inconclusive"] == 5


def test_the_plot_shows_limit_fault_and_rollback() -> None:
    svg = draw(simulate(read_scenario(TRAFFIC + FAILS), 1, 1))
    assert svg.startswith("<svg")
    assert all(words in svg for words in ("breached from here on", ">fault<", ">rollback<", ">errors<"))


def test_the_command_prints_json_and_draws(tmp_path: Path) -> None:
    file, plot = tmp_path / "s.toml", tmp_path / "s.svg"
    file.write_text("hours = 0.6\n" + TRAFFIC + FAILS)
    done = CliRunner().invoke(main, ["simulate", str(file), "--runs", "3", "--json", "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["runs"], found["fault_at_hour"]) == (3, 0.5)
    assert [rule["name"] for rule in found["rules"]] == ["rerank-canary", "argo", "flagger", "kayenta", "fixed-window"]
    assert plot.read_text().startswith("<svg")


def test_the_command_names_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[traffic]\nusers = -1\n")
    done = CliRunner().invoke(main, ["simulate", str(file)])
    assert done.exit_code == 2
    assert "$.traffic.users" in done.stderr


@pytest.mark.parametrize("file", sorted(Path("tests/perf/scenarios").glob("*.toml")), ids=lambda file: file.stem)
def test_every_scenario_of_the_bars_can_be_read(file: Path) -> None:
    assert read_scenario(file.read_text()).seconds > 0
