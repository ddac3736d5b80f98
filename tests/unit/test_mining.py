"""Mining the event log: whose opinions count, what becomes a negative, what is held out, and when nothing is made."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.errors import InvalidFile, InvalidModel, InvalidSettings
from proxy.events.reading import UnreadableEvents
from proxy.events.schema import VERSION_KEY
from proxy.feedback.measures import placed
from proxy.learning import mined_folder
from proxy.learning.mined_folder import check_leakage
from proxy.learning.mining import mine
from proxy.learning.mining_plan import MiningPlan, MiningReport, TooFewClicks
from proxy.offline.index_corpus import write_index
from proxy.offline.training_data import TrainingList, read_lists
from proxy.wire.canonical import Ranked, RerankCall
from tests.events import NOON, feedback, ranking, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from proxy.events.records import FeedbackEvent, ServedRanking

    Record = ServedRanking | FeedbackEvent

DOCUMENTS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
HOUR = 3600.0


class Users:
    """A log as users make it: each shown some documents in the order received, and saying something of some."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def ask(
        self, query: str, user: str = "ann", documents: Sequence[str] = DOCUMENTS, at: float = 0.0, **fields: Any
    ) -> str:
        """Serve *documents* as they are, and return the request's id."""
        request_id = f"request-{len(self.records)}"
        call = RerankCall(query=query, documents=tuple(documents), **fields.pop("call", {}))
        results = [Ranked(i, 0.9 - i / 100, 2.0 - i) for i in range(len(documents))]
        served = ranking(call, request_id=request_id, user_hash=user, started_at=NOON + at, **fields)
        self.records.append(msgspec.structs.replace(served, results=results))
        return request_id

    def say(self, request_id: str, *places: int, user: str = "ann", **fields: Any) -> None:
        """Say something, a click unless told otherwise, of documents by their places from 0."""
        usual = {"indices": places, "ranks": tuple(place + 1 for place in places), "user_hash": user}
        self.records.append(feedback(**({"request_id": request_id, "received_at": NOON + 1} | usual | fields)))

    def click(self, query: str, *places: int, user: str = "ann", **fields: Any) -> str:
        """Ask, and click."""
        request_id = self.ask(query, user, **fields)
        self.say(request_id, *places, user=user)
        return request_id

    def vote(self, query: str, vote: int, *places: int, user: str, **fields: Any) -> None:
        """Ask, and vote."""
        self.say(self.ask(query, user, **fields), *places, user=user, action="voted", vote=vote)


class Log:
    """A folder with a log that can be mined."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "mined"
        self.users = Users()

    def write(self, **settings: Any) -> None:
        """Write what the users did."""
        write(self.folder / "log", *self.users.records, **({"query": "text", "documents": "text"} | settings))

    def plan(self, **fields: Any) -> MiningPlan:
        """Return a plan that takes any number of lists, and holds nothing out."""
        usual: dict[str, Any] = {
            "events": str(self.folder / "log"),
            "since": 0.0,
            "until": 4e9,
            "out": self.out,
            "min_lists": 1,
            "held_out_share": 0.0,
        }
        return MiningPlan(**(usual | fields))

    def mine(self, scores: Any = None, **fields: Any) -> MiningReport:
        """Write the log and mine it."""
        self.write()
        return mine(self.plan(**fields), scores=scores)

    def lists(self, name: str = "train") -> dict[str, TrainingList]:
        """Return the lists of a part by their queries."""
        return {row.query: row for row in read_lists(self.out / f"{name}.jsonl")}

    def parts(self) -> list[Path]:
        """Return the exposures' files."""
        return sorted((self.folder / "log" / "exposures").rglob("*.parquet"))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


class Said:
    """A reranker that says of each text what it is told to."""

    label = "said"

    def __init__(self, **known: float) -> None:
        self._known = known

    def probabilities(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return what is known, or a tenth."""
        assert query
        return [self._known.get(text, 0.1) for text in texts]


def test_what_stood_above_the_lowest_click_and_was_left_is_a_negative_that_was_seen(log: Log) -> None:
    log.users.click("a query", 1, 3)
    report = log.mine(first_places=0)
    assert set(log.lists()["a query"].positives) == {"beta", "delta"}
    assert set(log.lists()["a query"].negatives) == {"alpha", "gamma"}
    assert report.kept["negatives: skipped"] == 2
    assert "negatives: unclicked" not in report.kept


def test_what_nobody_clicked_is_a_negative_down_to_the_first_places_and_after_what_was_skipped(log: Log) -> None:
    log.users.click("a query", 1)
    report = log.mine(first_places=4)
    assert log.lists()["a query"].negatives == ["alpha", "gamma", "delta"]
    assert report.kept["negatives: unclicked"] == 2


def test_the_order_that_users_saw_decides_not_the_order_received(log: Log) -> None:
    request_id = log.users.ask("a query")
    turned = [Ranked(i, 0.5, 0.0) for i in (5, 4, 3, 2, 1, 0)]
    log.users.records[-1] = msgspec.structs.replace(log.users.records[-1], results=turned)
    log.users.say(request_id, 4)
    log.mine(first_places=0)
    assert log.lists()["a query"].negatives == ["zeta"]


def test_a_citation_and_a_vote_up_are_positives_and_a_vote_down_is_a_negative(log: Log) -> None:
    request_id = log.users.ask("a query")
    log.users.say(request_id, 0, action="cited")
    log.users.say(request_id, 1, action="voted", vote=1)
    log.users.say(request_id, 5, action="voted", vote=-1)
    report = log.mine(first_places=0)
    assert set(log.lists()["a query"].positives) == {"alpha", "beta"}
    assert log.lists()["a query"].negatives == ["zeta"]
    assert report.kept["negatives: voted down"] == 1


def test_who_clicks_a_document_and_votes_it_down_calls_it_bad(log: Log) -> None:
    request_id = log.users.click("a query", 0, 2)
    log.users.say(request_id, 2, action="voted", vote=-1)
    log.mine(first_places=0)
    assert log.lists()["a query"].positives == ["alpha"]
    assert "gamma" in log.lists()["a query"].negatives


def test_who_votes_down_what_he_clicked_another_day_calls_it_bad(log: Log) -> None:
    log.users.click("a query", 0, 2)
    log.users.vote("a query", -1, 2, user="ann", at=HOUR)
    log.mine(first_places=0)
    assert log.lists()["a query"].positives == ["alpha"]


def test_a_list_weighs_as_its_clicks_do_against_position_bias_and_one_on_average(log: Log) -> None:
    log.users.click("first", 0)
    log.users.click("third and fifth", 2, 4)
    log.users.click("below", 5)
    log.mine(eta=1.0, weight_clip=4.5)
    weighed = {query: row.weight for query, row in log.lists().items()}
    expected = {
        query: sum(placed(range(6), places).weights(1.0, 4.5)) / len(places)
        for query, places in (("first", [0]), ("third and fifth", [2, 4]), ("below", [5]))
    }
    assert expected == {"first": 1.0, "third and fifth": 3.75, "below": 4.5}
    mean = sum(expected.values()) / 3
    assert weighed == pytest.approx({query: weight / mean for query, weight in expected.items()}, abs=1e-6)


def test_equal_queries_are_one_and_more_users_outweigh_fewer(log: Log) -> None:
    for user in ("ann", "bob"):
        log.users.click("The  QUERY", 0, user=user)
    log.users.vote("the query", -1, 0, 1, user="eve", at=1.0)
    log.users.click("straße", 0)
    log.users.click("STRASSE", 2, user="bob", at=1.0)
    log.mine(first_places=0)
    assert set(log.lists()) == {"The  QUERY", "straße"}
    assert log.lists()["The  QUERY"].positives == ["alpha"]
    assert log.lists()["The  QUERY"].negatives == ["beta"]
    assert set(log.lists()["straße"].positives) == {"alpha", "gamma"}


def test_a_document_that_as_many_call_good_as_bad_is_neither(log: Log) -> None:
    log.users.click("a query", 0, 1)
    log.users.vote("a query", -1, 0, user="bob")
    report = log.mine()
    row = log.lists()["a query"]
    assert "alpha" not in {*row.positives, *row.negatives}
    assert report.dropped["documents that as many users call good as bad"] == 1


def test_one_user_counts_once_for_a_document_of_a_query_however_often_he_clicks_it(log: Log) -> None:
    for _ in range(5):
        log.users.click("a query", 0)
    log.users.vote("a query", -1, 0, user="bob")
    log.users.vote("a query", -1, 0, user="eve")
    log.users.click("another query", 0)
    report = log.mine()
    assert set(log.lists()) == {"another query"}
    assert report.dropped["opinions that a user gave before"] == 4


def test_a_user_who_makes_most_clicks_is_capped_and_reported(log: Log) -> None:
    for number in range(30):
        log.users.click(f"query of ann {number}", 1)
    for user in ("bob", "eve"):
        log.users.click(f"query of {user}", 1, user=user)
    report = log.mine(max_per_user=10)
    assert sum(query.startswith("query of ann") for query in log.lists()) == 10
    assert {"query of bob", "query of eve"} < set(log.lists())
    assert (report.users, report.capped_users) == (3, 1)
    assert report.dropped["opinions above the most of one user"] == 20


def test_no_user_has_more_than_a_share_of_all_opinions(log: Log) -> None:
    for number in range(60):
        log.users.click(f"query of ann {number}", 1)
        log.users.click(f"query of bob {number % 20}", number // 20, user=f"bob {number}")
    log.mine(max_user_share=0.25)
    assert sum(query.startswith("query of ann") for query in log.lists()) == 30


def test_users_whose_votes_say_the_opposite_of_all_others_are_left_out_and_reported(log: Log) -> None:
    for number in range(6):
        for user in ("ann", "bob", "carl"):
            log.users.click(f"query {number}", 1, user=user)
        log.users.vote(f"query {number}", -1, 1, user="eve")
        log.users.vote(f"query {number}", 1, 0, user="mallory")  # which three users saw and passed over
    log.users.vote("query 0", 1, 1, user="dora")
    report = log.mine()
    assert {(each.user_hash, each.why) for each in report.outliers} == {
        ("eve", "contradicts"),
        ("mallory", "contradicts"),
    }
    assert report.dropped["opinions of outliers"] == 12
    assert all(row.positives == ["beta"] for row in log.lists().values())


def test_users_who_vote_far_more_than_others_are_left_out_and_reported(log: Log) -> None:
    for user in ("ann", "bob", "carl", "dora"):
        log.users.vote(f"query of {user}", 1, 1, 2, user=user)
    for number in range(10):
        log.users.vote(f"query of eve {number}", 1, 1, 2, 3, user="eve")
    report = log.mine()
    assert [(each.user_hash, each.why, each.opinions) for each in report.outliers] == [("eve", "votes", 30)]
    assert not [query for query in log.lists() if "eve" in query]
    assert len(log.lists()) == 4


def test_a_negative_that_scores_nearly_as_the_positive_is_left_out(log: Log) -> None:
    log.users.click("a query", 1)
    report = log.mine(Said(beta=0.8, alpha=0.71, gamma=0.69, delta=0.3), margin=0.1)
    assert log.lists()["a query"].negatives == ["gamma", "delta", "epsilon", "zeta"]
    assert report.dropped["false negatives by the margin: skipped"] == 1
    assert report.model == "said"


def test_a_wider_margin_leaves_more_out(log: Log) -> None:
    log.users.click("a query", 1)
    log.mine(Said(beta=0.8, alpha=0.71, gamma=0.69, delta=0.3), margin=0.2)
    assert log.lists()["a query"].negatives == ["delta", "epsilon", "zeta"]


def test_a_reranker_that_does_not_know_the_positive_leaves_out_what_it_takes_for_more_than_half_as_probable(
    log: Log,
) -> None:
    log.users.click("a query", 1)
    log.mine(Said(beta=0.08, alpha=0.05, gamma=0.03, delta=0.02), margin=0.1)
    assert log.lists()["a query"].negatives == ["gamma", "delta"]


def test_what_users_are_known_to_have_rejected_stays_and_stands_first_as_the_rerankers_mistake(log: Log) -> None:
    for user in ("ann", "bob"):
        log.users.click("a query", 1, user=user)
    log.users.vote("a query", -1, 5, user="carl")
    report = log.mine(Said(beta=0.5, alpha=0.9, zeta=0.95, gamma=0.9))
    assert log.lists()["a query"].negatives == ["zeta", "alpha", "delta", "epsilon"]
    assert report.kept["negatives that the reranker takes for relevant, and users rejected"] == 2


def test_a_list_whose_negatives_all_look_false_is_left_out(log: Log) -> None:
    log.users.click("a query", 1)
    log.users.click("two", 0, documents=("yes", "no"))
    report = log.mine(Said(yes=0.3, no=0.3, beta=0.9))
    assert set(log.lists()) == {"a query"}
    assert report.dropped["lists without a negative"] == 1
    with pytest.raises(TooFewClicks, match=r"clicks on 1 query to train on \(of 2,"):
        mine(log.plan(min_lists=2), scores=Said(yes=0.3, no=0.3, beta=0.9))


def test_a_list_has_no_more_negatives_than_wanted(log: Log) -> None:
    log.users.click("a query", 1)
    report = log.mine(max_negatives=2)
    assert log.lists()["a query"].negatives == ["alpha", "gamma"]
    assert report.dropped["negatives above the most of a list"] == 3


def index_of(folder: Path, *texts: str) -> Path:
    rows = [json.dumps({"id": str(number), "text": text}) for number, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    write_index(folder / "corpus.jsonl", folder / "index")
    return folder / "index"


def test_what_the_retriever_finds_and_nobody_was_shown_is_a_negative(log: Log) -> None:
    index = index_of(log.folder, "boiled eggs for long", "Alpha  eggs", "steel cables")
    log.users.click("boiled eggs", 1, documents=("alpha eggs", "beta"))
    report = log.mine(index=index)
    assert log.lists()["boiled eggs"].negatives == ["alpha eggs", "boiled eggs for long"]
    assert report.kept["negatives: retrieved"] == 1
    assert report.index == str(index)


def test_an_index_whose_corpus_changed_is_refused_before_anything_is_done(log: Log) -> None:
    index = index_of(log.folder, "boiled eggs for long")
    (log.folder / "corpus.jsonl").write_text('{"id": "1", "text": "another"}')
    log.users.click("boiled eggs", 1)
    with pytest.raises(InvalidFile, match="has changed since"):
        log.mine(index=index)
    assert not log.out.exists()


def test_documents_that_differ_by_case_and_spaces_are_one(log: Log) -> None:
    log.users.click("a query", 1, documents=("Same  Text", "good", "other"))
    log.users.click("a query", 1, user="bob", documents=("same text ", "GOOD", "Other"))
    log.mine()
    row = log.lists()["a query"]
    assert [str(text).lower() for text in row.positives] == ["good"]
    assert sorted(" ".join(str(text).lower().split()) for text in row.negatives) == ["other", "same text"]


def test_held_out_are_the_queries_that_were_asked_last_for_the_first_time(log: Log) -> None:
    for number in range(10):
        log.users.click(f"query {number}", 1, at=number * HOUR)
    log.users.click("Query 0", 1, user="bob", at=20 * HOUR)  # asked early too
    log.users.ask("query 9", at=0.5 * HOUR)  # early, though nobody clicked then
    report = log.mine(held_out_share=0.2)
    assert set(log.lists("held_out")) == {"query 7", "query 8"}
    assert len(log.lists()) == report.train_lists == 8
    assert report.held_out_since == NOON + 7 * HOUR
    assert log.lists("held_out")["query 7"].at == NOON + 7 * HOUR


def test_near_duplicates_of_a_query_go_to_the_same_part(log: Log) -> None:
    for number in range(8):
        log.users.click(f"query {number}", 1, at=number * HOUR)
    log.users.click("soft, boiled eggs!", 1, at=0.5 * HOUR)
    log.users.click("eggs boiled soft", 1, at=9 * HOUR)
    log.mine(held_out_share=0.2)
    assert {"soft, boiled eggs!", "eggs boiled soft"} < set(log.lists())
    assert set(log.lists("held_out")) == {"query 6", "query 7"}


def test_a_held_out_list_has_all_else_that_was_shown_for_its_query(log: Log) -> None:
    log.users.click("early", 1)
    log.users.click("late", 1, at=HOUR)
    log.users.ask("Late", "bob", documents=("beta", "eta", "theta"), at=2 * HOUR)
    report = log.mine(held_out_share=0.5, first_places=1, max_negatives=1)
    row = log.lists("held_out")["late"]
    assert row.positives == ["beta"]
    assert set(row.negatives) == {"alpha", "gamma", "delta", "epsilon", "zeta", "eta", "theta"}
    assert report.kept["held out: negatives"] == 7


def test_no_model_has_a_say_in_what_is_held_out(log: Log) -> None:
    log.users.click("early", 1)
    log.users.click("late", 1, at=HOUR)
    log.mine(Said(beta=0.5, alpha=0.9), held_out_share=0.5)
    assert "alpha" in log.lists("held_out")["late"].negatives
    assert "alpha" not in log.lists()["early"].negatives


@pytest.mark.parametrize("leaked", ["A  query", "query, a"], ids=["normalised", "near-duplicate"])
def test_a_query_in_both_parts_is_found(leaked: str) -> None:
    check_leakage(["a query"], ["another query"])
    with pytest.raises(AssertionError, match="1 held-out"):
        check_leakage(["a query"], [leaked, "another query"])


def test_a_split_that_leaks_is_never_written(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.users.click("a query", 1)
    monkeypatch.setattr(mined_folder.ListFile, "queries", lambda _self: iter(["a query"]))
    with pytest.raises(AssertionError, match="1 held-out"):
        log.mine()
    assert sorted(path.name for path in log.folder.iterdir()) == ["log"]


def test_forced_requests_and_those_that_nobody_ranked_are_left_out_and_doubles_count_once(log: Log) -> None:
    log.users.click("a query", 1)
    log.users.records += log.users.records
    log.users.click("forced", 1, is_forced=True)
    log.users.click("unranked", 1)
    log.users.records[-2] = msgspec.structs.replace(log.users.records[-2], results=[])
    log.users.say("a request of another log", 1)
    report = log.mine()
    assert set(log.lists()) == {"a query"}
    assert report.dropped["requests written twice"] == 1
    assert report.dropped["feedback said before of the same document"] == 1
    assert report.dropped["requests that were forced, or nobody's"] == 1
    assert report.dropped["requests that nobody ranked"] == 1
    assert report.dropped["feedback on no request of the period"] == 1


def test_too_few_clicks_say_how_many_are_needed_and_change_nothing(log: Log) -> None:
    log.users.click("a query", 1)
    log.mine()
    before = (log.out / "train.jsonl").read_bytes()
    with pytest.raises(TooFewClicks, match="clicks on 1 query to train on, at least 200 are needed"):
        mine(log.plan(min_lists=200))
    assert (log.out / "train.jsonl").read_bytes() == before
    assert sorted(path.name for path in log.folder.iterdir()) == ["log", "mined"]


def test_an_empty_log_has_too_few_clicks(log: Log) -> None:
    with pytest.raises(TooFewClicks, match="clicks on 0 queries"):
        mine(log.plan())


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-20])


def spoil(part: Path) -> None:
    """Damage the pages, and leave the end as it is."""
    raw = part.read_bytes()
    end = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")  # where the footer begins, as Parquet has it
    part.write_bytes(raw[:4] + b"\xff" * (end - 4) + raw[end:])


@pytest.mark.parametrize("damage", [cut, spoil])
def test_a_broken_part_is_named_or_passed_over_and_counted(log: Log, damage: Callable[[Path], None]) -> None:
    log.users.click("whole", 1)
    log.users.click("broken", 1, at=2 * HOUR)
    log.write()
    damage(log.parts()[-1])
    with pytest.raises(UnreadableEvents, match=str(log.parts()[-1])):
        mine(log.plan())
    assert not log.out.exists()
    report = mine(log.plan(skip_broken=True))
    assert report.broken_parts == [str(log.parts()[-1])]
    assert set(log.lists()) == {"whole"}


def test_a_part_of_a_newer_version_is_refused_even_where_broken_ones_are_passed_over(log: Log) -> None:
    log.users.click("a query", 1)
    log.write()
    (part,) = log.parts()
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, VERSION_KEY: b"99"}), part)
    with pytest.raises(UnreadableEvents, match="newer rerank-canary"):
        mine(log.plan(skip_broken=True))


def test_a_part_of_an_older_version_is_mined_beside_those_of_today(log: Log) -> None:
    log.users.click("old", 1)
    log.users.click("new", 1, at=2 * HOUR)
    log.write()
    part, _ = log.parts()
    table = pq.read_table(part).drop_columns(["is_forced"])
    old = table.append_column("is_forced", [["false"]]).drop_columns(["scores"])
    metadata = {**table.schema.metadata, VERSION_KEY: b"0"}
    pq.write_table(old.replace_schema_metadata(metadata), part)
    mine(log.plan())
    assert set(log.lists()) == {"old", "new"}


def test_a_part_without_a_column_is_named(log: Log) -> None:
    log.users.click("a query", 1)
    log.write()
    (part,) = log.parts()
    pq.write_table(pq.read_table(part).drop_columns(["query"]), part)
    with pytest.raises(UnreadableEvents, match="has no column `query`"):
        mine(log.plan())


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"query": "hash"}, r"\$\.events\.query"), ({"documents": "hash"}, r"\$\.events\.documents")],
    ids=["queries", "documents"],
)
def test_a_log_without_texts_names_the_setting(log: Log, settings: dict[str, str], named: str) -> None:
    log.users.click("a query", 1)
    log.write(**settings)
    with pytest.raises(InvalidSettings, match=named):
        mine(log.plan())
    assert not log.out.exists()


def with_ids(*names: str) -> dict[str, Any]:
    return {"call": {"echoes": tuple({"id": name, "text": "unseen"} for name in names)}, "documents": names}


def test_texts_are_read_from_passages_where_the_log_has_ids(log: Log) -> None:
    log.users.click("a query", 1, **with_ids("d1", "d2", "d3", "d4"))
    log.write(documents="id")
    rows = [json.dumps({"id": name, "text": f"text of {name}"}) for name in ("d1", "d2", "d3")]
    (log.folder / "passages.jsonl").write_text("\n".join(rows))
    report = mine(log.plan(passages=log.folder / "passages.jsonl"))
    assert log.lists()["a query"].positives == ["text of d2"]
    assert log.lists()["a query"].negatives == ["text of d1", "text of d3"]
    assert report.dropped["documents shown whose text is not known"] == 1


def test_passages_of_other_ids_are_refused(log: Log) -> None:
    log.users.click("a query", 1)
    log.write(documents="hash")
    (log.folder / "passages.jsonl").write_text('{"id": "d1", "text": "x"}')
    with pytest.raises(InvalidSettings, match="has none of the ids of the log"):
        mine(log.plan(passages=log.folder / "passages.jsonl"))


def test_feedback_by_ids_counts(log: Log) -> None:
    request_id = log.users.ask("a query", **with_ids("d1", "d2", "d3"))
    log.users.records.append(feedback(request_id=request_id, indices=(), ranks=(), document_ids=("d2",)))
    log.mine()
    assert log.lists()["a query"].positives == ["d2"]


def test_a_disk_that_is_full_in_the_middle_leaves_what_was_there(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.users.click("a query", 1)
    log.mine()
    before = {path.name: path.read_bytes() for path in log.out.iterdir()}

    def full(_self: object, _row: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mined_folder.ListFile, "add", full)
    with pytest.raises(InvalidFile, match="No space left"):
        mine(log.plan())
    assert {path.name: path.read_bytes() for path in log.out.iterdir()} == before
    assert sorted(path.name for path in log.folder.iterdir()) == ["log", "mined"]


def test_what_a_killed_run_left_goes_with_the_next_and_a_run_under_way_is_let_be(log: Log) -> None:
    log.users.click("a query", 1)
    left, under_way = (log.folder / f".mined.{name}.tmp" for name in ("left", "others"))
    left.mkdir()
    with mined_folder.scratch(log.out) as folder:
        folder.rename(under_way)
        log.mine()
        assert (left.exists(), under_way.exists()) == (False, True)


def test_a_log_in_an_object_store_is_mined(log: Log) -> None:
    log.users.click("a query", 1)
    url = f"memory://{log.folder}"
    write(url, *log.users.records, query="text", documents="text")
    report = mine(log.plan(events=url))
    assert log.lists()["a query"].positives == ["beta"]
    assert report.exposures == 1


def test_a_folder_of_other_files_is_not_replaced(log: Log) -> None:
    log.out.mkdir()
    (log.out / "thesis.tex").write_text("years of work")
    log.users.click("a query", 1)
    with pytest.raises(InvalidFile, match="no mined set"):
        log.mine()
    assert (log.out / "thesis.tex").exists()


def test_the_same_log_makes_the_same_files(log: Log) -> None:
    for number in range(20):
        log.users.click(f"query {number}", number % 5, user=f"user {number % 3}", at=number)
    log.mine(held_out_share=0.2)
    before = [(log.out / name).read_bytes() for name in ("train.jsonl", "held_out.jsonl")]
    mine(log.plan(held_out_share=0.2, threads=1))
    assert [(log.out / name).read_bytes() for name in ("train.jsonl", "held_out.jsonl")] == before


def test_no_more_lists_are_made_than_wanted(log: Log) -> None:
    for number in range(8):
        log.users.click(f"query {number}", 1)
    report = log.mine(max_lists=3)
    assert report.train_lists == len(log.lists()) == 3
    assert report.dropped["lists above the most that are wanted"] == 5


def test_a_memory_that_is_no_size_is_named(log: Log) -> None:
    log.users.click("a query", 1)
    with pytest.raises(InvalidSettings, match="--memory: plenty"):
        log.mine(memory="plenty")


def test_a_model_that_is_none_is_refused(log: Log) -> None:
    log.users.click("a query", 1)
    with pytest.raises(InvalidModel):
        log.mine(model=str(log.folder))
    assert not log.out.exists()


def run(log: Log, *arguments: str) -> Any:
    paths = ("--events", str(log.folder / "log"), "--out", str(log.out))
    span = ("--since", "2026-11-23", "--until", "2026-11-25")
    return CliRunner().invoke(main, ["mine", *paths, *span, *arguments])


def test_the_command_prints_its_report_as_tables_and_as_json(log: Log) -> None:
    for number in range(10):
        log.users.click(f"query {number}", 1, at=float(number))
    log.write()
    done = run(log, "--no-model", "--min-lists", "5")
    assert done.exit_code == 0, done.output
    assert "negatives: skipped" in done.stdout
    done = run(log, "--no-model", "--min-lists", "5", "--json")
    report = msgspec.json.decode(done.stdout, type=MiningReport)
    assert report == msgspec.json.decode((log.out / "report.json").read_bytes(), type=MiningReport)
    assert (report.exposures, report.train_lists, report.held_out_lists) == (10, 8, 2)


def test_the_command_ends_with_1_for_too_few_clicks_and_2_for_what_cannot_be_used(log: Log) -> None:
    log.users.click("a query", 1)
    log.write()
    done = run(log, "--no-model")
    assert (done.exit_code, "clicks on" in done.stderr) == (1, True)
    cut(log.parts()[0])
    done = run(log, "--no-model", "--min-lists", "1")
    assert (done.exit_code, str(log.parts()[0]) in done.stderr) == (2, True)


def test_the_shipped_reranker_tells_a_false_negative(log: Log) -> None:
    eggs = "A soft boiled egg should cook for about six minutes in boiling water."
    same = "Cook eggs for six minutes for a soft boiled egg with a runny yolk."
    steel = "Steel cables are tested for fatigue before a suspension bridge opens."
    log.users.click("how long should a soft boiled egg cook", 1, documents=(same, eggs, steel))
    log.mine(model="shipped")
    assert log.lists()["how long should a soft boiled egg cook"].negatives == [steel]
