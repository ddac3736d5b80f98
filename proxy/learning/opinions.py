"""What users think of documents, from what they clicked, cited and voted for; in DuckDB.

A document that a user clicked, cited or voted up is a positive of the query, and counts for as many users as its rank
says (`proxy.feedback.measures`). One that stood above the lowest such one, and was left, was seen and passed over: a
reliable negative ("Click > Skip Above" of Joachims, Granka, Pan, Hembrooke and Gay 2005, "Accurately Interpreting
Clickthrough Data as Implicit Feedback", section 6). Who votes a document down, even if he clicked it, calls it bad.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from proxy.errors import InvalidSettings
from proxy.feedback.measures import Placed
from proxy.learning.words import normalised, word_set
from proxy.offline.corpus import read_corpus

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.learning.database import Database
    from proxy.learning.mining_plan import MiningPlan

_PASSAGES_OF_A_BATCH = 10_000


def document_of(text: str) -> str:
    """Return the SQL of what a document is: the hash of its text without case and with single spaces.

    Case is folded by Unicode's simple map. A text of nothing but spaces, or none, is no document: null.
    """
    spaces = r"'^\s|\s$|\s\s|[\t\n\r\f\v]'"  # most texts have none: a search is several times faster than a replacement
    replaced = rf"trim(regexp_replace({text}, '\s+', ' ', 'g'))"
    single = f"CASE WHEN regexp_matches({text}, {spaces}) THEN {replaced} ELSE {text} END"
    return f"nullif(hash(coalesce(lower({single}), '')), hash(''))"  # the hash of null is none


def read_said(db: Database) -> dict[str, int]:
    """Make ``said``: what was said of which place of which request, each once. Returns what was left out, and why."""
    db.run(
        """
        CREATE TABLE events AS
        SELECT hash(request_id) AS request, user_hash, moment, action, unnest(CASE WHEN len(indices) > 0 THEN indices
            ELSE list_transform(document_ids, lambda x: NULL::INTEGER) END) AS place,
            unnest(CASE WHEN len(indices) > 0 THEN NULL ELSE document_ids END) AS named,
            CASE WHEN action IN ('clicked', 'cited') OR (action = 'voted' AND vote > 0) THEN 1
                WHEN action = 'voted' AND vote < 0 THEN -1 ELSE 0 END AS sign
        FROM feedback
        """
    )
    db.run(
        """
        CREATE TABLE said AS
        SELECT request, place, named, max(user_hash) AS user_hash, bool_or(sign > 0) AS up, bool_or(sign < 0) AS down,
            bool_or(action = 'voted') AS is_vote, min(moment) AS moment
        FROM events WHERE sign <> 0 GROUP BY request, place, named
        """
    )
    unknown, known = db.one("SELECT count(*) FILTER (sign = 0), count(*) FILTER (sign <> 0) FROM events")
    return {
        "feedback of an unknown action": unknown,
        "feedback said before of the same document": known - db.count("SELECT count(*) FROM said"),
    }


def read_served(db: Database, plan: MiningPlan) -> dict[str, int]:
    """Make ``served``, the requests that something was said of, and ``shown``, their documents by rank."""
    db.run(
        """
        CREATE TABLE served AS
        SELECT * FROM (
            SELECT hash(request_id) AS request, moment, user_hash, is_forced, query, len("order") > 0 AS is_ranked,
                documents IS NOT NULL AS has_texts, document_ids IS NOT NULL AS has_ids,
                row_number() OVER (PARTITION BY hash(request_id) ORDER BY moment) AS copy
            FROM exposures WHERE hash(request_id) IN (SELECT request FROM said)
        )
        """
    )
    doubles = db.count("SELECT count(*) FROM served WHERE copy > 1")
    db.run("DELETE FROM served WHERE copy > 1")
    dropped = {
        "requests written twice": doubles,
        "feedback on no request of the period": db.count("SELECT count(*) FROM said ANTI JOIN served USING (request)"),
        "requests that were forced, or nobody's": _drop_served(db, "is_forced IS NOT FALSE"),
        "requests that nobody ranked": _drop_served(db, "is_ranked IS NOT TRUE"),
        "requests whose query is not in the log": _drop_without_query(db),
        "requests whose documents are not in the log": _drop_without_documents(db, plan),
    }
    _read_passages(db, plan.passages)
    _read_shown(db)
    dropped["documents shown whose text is not known"] = db.count("SELECT count(*) FROM shown WHERE doc IS NULL")
    _check_ids(db, plan)
    return dropped


def _drop_served(db: Database, where: str) -> int:
    found = db.count(f"SELECT count(*) FROM served WHERE {where}")
    db.run(f"DELETE FROM served WHERE {where}")
    return found


def _drop_without_query(db: Database) -> int:
    total = db.count("SELECT count(*) FROM served")
    lacking = _drop_served(db, "query IS NULL OR trim(query) = ''")
    if total and lacking == total:
        raise InvalidSettings('$.events.query: the log has no texts of queries; it has them with query = "text"')
    return lacking


def _drop_without_documents(db: Database, plan: MiningPlan) -> int:
    total = db.count("SELECT count(*) FROM served")
    lacking = _drop_served(db, "NOT has_texts" if plan.passages is None else "NOT has_texts AND NOT has_ids")
    if total and lacking == total:
        raise InvalidSettings(
            '$.events.documents: the log has no texts of documents; it has them with documents = "text", or with '
            'documents = "id" they are read from --passages'
        )
    return lacking


def _read_passages(db: Database, file: Path | None) -> None:
    db.run("CREATE TABLE passages (id VARCHAR, text VARCHAR)")
    if file is None:
        return
    rows: list[tuple[str, str]] = []

    def add() -> None:
        ids, texts = zip(*rows, strict=True)
        db.add("passages", pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())}))
        rows.clear()

    for passage in read_corpus(file):
        rows.append((passage.id, passage.whole))
        if len(rows) == _PASSAGES_OF_A_BATCH:
            add()
    if rows:
        add()


def _read_shown(db: Database) -> None:
    db.run(
        f"""
        CREATE TABLE shown AS
        WITH ranked AS (
            SELECT hash(request_id) AS request,
                list_transform("order"[1:sent], lambda x: x + 1) AS places, documents, document_ids
            FROM exposures SEMI JOIN served ON hash(exposures.request_id) = served.request
        ), each AS (
            SELECT request, unnest(places) - 1 AS place, generate_subscripts(places, 1) AS rank,
                unnest(list_select(documents, places)) AS text, unnest(list_select(document_ids, places)) AS id
            FROM ranked
        )
        SELECT DISTINCT request, place, rank, each.id,
            {document_of("coalesce(each.text, passages.text)")} AS doc
        FROM each LEFT JOIN passages ON each.text IS NULL AND passages.id = each.id
        """
    )


def _check_ids(db: Database, plan: MiningPlan) -> None:
    shown, known = db.one("SELECT count(*), count(doc) FROM shown")
    if plan.passages is not None and shown and not known:
        raise InvalidSettings(
            f'--passages: {plan.passages} has none of the ids of the log; with [events] documents = "hash" those '
            'are hashes: set documents = "id" or "text"'
        )


def read_queries(db: Database) -> None:
    """Make ``queries``: each wording in the period, what it is normalised, and when that was first asked.

    All requests count, not only those that something was said of: what was asked early is no query of the last part.
    """
    db.run("CREATE TABLE wordings (query VARCHAR, normal VARCHAR, words VARCHAR, moment BIGINT)")
    sql = """
        SELECT query, min(moment) AS moment FROM exposures WHERE query IS NOT NULL AND is_forced IS FALSE GROUP BY query
    """
    for batch in db.batches(sql):
        normal = [normalised(query) for query in batch["query"].to_pylist()]
        columns = [
            batch["query"],
            pa.array(normal, pa.string()),
            pa.array(map(word_set, normal), pa.string()),
            batch["moment"],
        ]
        db.add("wordings", pa.table(columns, names=["query", "normal", "words", "moment"]))
    db.run(
        """
        CREATE TABLE queries AS
        SELECT query, hash(normal) AS q, moment, min(moment) OVER (PARTITION BY normal) AS first_at,
            min(moment) OVER (PARTITION BY words) AS near_at
        FROM wordings WHERE normal <> ''
        """
    )
    db.run("DROP TABLE wordings")


def read_opinions(db: Database, plan: MiningPlan) -> dict[str, int]:
    """Make ``opinions``: what each user said of a document of a query, once however often he said it."""
    last = db.count("SELECT max(rank) FROM shown") or 1
    weights = Placed(tuple(range(1, last + 1)), last).weights(plan.eta, plan.weight_clip)
    db.run("CREATE TABLE propensity (rank BIGINT, weight DOUBLE)")
    db.add("propensity", pa.table({"rank": pa.array(range(1, last + 1), pa.int64()), "weight": weights}))
    db.run(
        """
        CREATE TABLE heard AS
        SELECT q, coalesce(said.user_hash, served.user_hash, '') AS user_hash, doc, said.request, shown.rank, weight,
            up AND NOT down AS up, down, is_vote, served.moment
        FROM said JOIN served USING (request) JOIN queries USING (query)
            JOIN shown ON shown.request = said.request
                AND CASE WHEN said.place IS NULL THEN shown.id = said.named ELSE shown.place = said.place END
            JOIN propensity ON propensity.rank = shown.rank
        WHERE doc IS NOT NULL
        """
    )
    db.run(
        """
        CREATE TABLE opinions AS
        SELECT q, user_hash, doc, NOT bool_or(down) AS up, bool_or(is_vote) AS is_vote,
            arg_min(weight, row(moment, weight)) AS weight
        FROM heard GROUP BY q, user_hash, doc
        """
    )
    return {
        "feedback on a document that was not served": db.count(
            "SELECT count(*) FROM said SEMI JOIN served USING (request)"
        )
        - db.count("SELECT count(*) FROM heard"),
        "opinions that a user gave before": db.count("SELECT count(*) FROM heard")
        - db.count("SELECT count(*) FROM opinions"),
    }
