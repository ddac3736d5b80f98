"""Whose opinions count, and how many of one user; in DuckDB.

Two kinds of users are left out whole. Those who vote far more than others: on the logarithm of the number of votes,
the modified z-score 0.6745 (x - median) / MAD above 3.5 (Iglewicz and Hoaglin 1993, "How to Detect and Handle
Outliers"), the MAD taken as at least half a doubling. And those whose votes nearly always say the opposite of what all
others say of the same document of the same query: they clicked or voted it up, or down, or, where nobody did, two of
them saw it and passed over it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.learning.mining_plan import FEWEST_OPINIONS, Outlier

if TYPE_CHECKING:
    from proxy.learning.database import Database
    from proxy.learning.mining_plan import MiningPlan

_Z, _MAD_TO_SIGMA, _LEAST_MAD = 3.5, 0.6745, 0.5
_MANY_VOTES = 20
"""Fewer votes are never too many."""
_FEWEST_VOTERS = 3
_FEWEST_COMPARED = 5
"""Votes that others have an opinion on; of fewer nothing can be said."""
_CONTRADICTS = 0.8
"""This share of them."""
_REPORTED = 100


def find_outliers(db: Database) -> list[Outlier]:
    """Make ``outliers``, take their opinions out, and return the first of them."""
    db.run("CREATE TABLE outliers (user_hash VARCHAR, why VARCHAR)")
    db.run(
        f"""
        INSERT INTO outliers
        WITH votes AS (SELECT user_hash, log2(count(*)) AS x, count(*) AS n FROM opinions WHERE is_vote GROUP BY ALL),
            middle AS (SELECT median(x) AS median, greatest(mad(x), {_LEAST_MAD}) AS mad, count(*) AS voters FROM votes)
        SELECT user_hash, 'votes' FROM votes, middle
        WHERE n >= {_MANY_VOTES} AND voters >= {_FEWEST_VOTERS} AND {_MAD_TO_SIGMA} * (x - median) / mad > {_Z}
        """
    )
    _passed(db, "opinions")
    db.run(
        f"""
        INSERT INTO outliers
        WITH all_said AS (
            SELECT q, doc, sum(CASE WHEN up THEN 1 ELSE -1 END) AS balance, count(*) AS n
            FROM opinions ANTI JOIN outliers USING (user_hash) GROUP BY q, doc
        ), skips AS (SELECT q, doc, count(DISTINCT user_hash) AS n FROM passed WHERE is_skipped GROUP BY q, doc),
        compared AS (
            SELECT opinions.user_hash, CASE WHEN up THEN 1 ELSE -1 END AS said,
                CASE WHEN all_said.n > 1 THEN balance - said WHEN skips.n >= 2 THEN -1 ELSE 0 END AS others
            FROM opinions ANTI JOIN outliers USING (user_hash) JOIN all_said USING (q, doc)
                LEFT JOIN skips USING (q, doc) WHERE is_vote
        )
        SELECT user_hash, 'contradicts' FROM compared WHERE others <> 0 GROUP BY user_hash
        HAVING count(*) >= {_FEWEST_COMPARED} AND avg((said * others < 0)::INTEGER) >= {_CONTRADICTS}
        """
    )
    found = db.all(
        f"""SELECT user_hash, why, count(*) AS n FROM opinions JOIN outliers USING (user_hash)
        GROUP BY user_hash, why ORDER BY n DESC, user_hash LIMIT {_REPORTED}"""
    )
    return [Outlier(*row) for row in found]


def take_out(db: Database, plan: MiningPlan) -> tuple[dict[str, int], int]:
    """Make ``kept``, the opinions that count, and ``passed``, what their users saw and left.

    Returns what was left out, and of how many users.
    """
    before = db.count("SELECT count(*) FROM opinions")
    db.run("DELETE FROM opinions WHERE user_hash IN (SELECT user_hash FROM outliers)")
    after = db.count("SELECT count(*) FROM opinions")
    most = min(plan.max_per_user, max(FEWEST_OPINIONS, int(plan.max_user_share * after)))
    db.run(
        f"""
        CREATE TABLE kept AS SELECT * EXCLUDE (place) FROM (
            SELECT *, row_number() OVER (PARTITION BY user_hash ORDER BY hash(q, doc)) AS place FROM opinions
        ) WHERE place <= {most}
        """
    )
    capped = after - db.count("SELECT count(*) FROM kept")
    users = db.count(f"SELECT count(*) FROM (SELECT user_hash FROM opinions GROUP BY ALL HAVING count(*) > {most})")
    _passed(db, "kept")
    return {"opinions of outliers": before - after, "opinions above the most of one user": capped}, users


def _passed(db: Database, opinions: str) -> None:
    """Make ``passed``: for each user, what he was shown where he chose something that counts, and did not choose."""
    db.run(
        f"""
        CREATE OR REPLACE TABLE passed AS
        WITH chosen AS (
            SELECT request, any_value(heard.q) AS q, any_value(user_hash) AS user_hash, max(rank) AS lowest
            FROM heard SEMI JOIN (SELECT * FROM {opinions} WHERE up) AS liked USING (q, user_hash, doc)
            WHERE heard.up GROUP BY request
        )
        SELECT q, user_hash, doc, bool_or(rank < lowest) AS is_skipped, min(rank) AS rank
        FROM chosen JOIN shown USING (request)
        WHERE doc IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM opinions WHERE opinions.q = chosen.q AND opinions.user_hash = chosen.user_hash
                AND opinions.doc = shown.doc
        )
        GROUP BY q, user_hash, doc
        """
    )
