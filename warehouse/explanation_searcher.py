"""Search over explanations: by words, by a regular expression, and by meaning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import polars as pl

from warehouse.absence import require_known
from warehouse.box import Parameters
from warehouse.condition import find_fault
from warehouse.errors import QueryError

if TYPE_CHECKING:
    from warehouse.embedding import Embedder

ExplanationOrder: TypeAlias = Literal["words", "regex", "meaning"]

_FILTERS = (
    "model := $model, component := $component, layer := $layer, min_score := $min_score, origin := $origin, "
    "explainer := $explainer, score_kind := $score_kind"
)


class ExplanationSearcher(ABC):
    """Asks the macros over explanations."""

    @abstractmethod
    def sql(self, query: str, params: Parameters = None) -> pl.DataFrame:
        """Run one SELECT over the lake."""

    @cached_property
    def _embedder(self) -> Embedder:
        from warehouse.embedding import Embedder

        return Embedder()

    def search_explanations(
        self,
        text: str,
        how: ExplanationOrder = "words",
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
        *,
        min_score: float | None = None,
        origin: str | None = None,
        explainer: str | None = None,
        score_kind: str | None = None,
        where: str | None = None,
    ) -> pl.DataFrame:
        """Find explanations, best first.

        Args:
            text: what they are about.
            how: they have some of its words, most and rarest first (words); it matches in them, as a regular expression
                of RE2 (regex); or they mean the like (meaning; it needs the extra `semantic`).
            k: rows at most.
            model: only of units of this model.
            component: only of units of this component.
            layer: only of units of this layer.
            min_score: only with a score of at least this.
            origin: only of this origin.
            explainer: only of this explainer.
            score_kind: only with a score of this kind.
            where: a predicate in SQL over the columns of the result and those of `units`, as "top_token <> ' king'".

        Raises:
            QueryError: `how` is none of these, the regular expression or the predicate is wrong, or there are no
                embeddings to compare with.
            MissingEmbedder: the extra `semantic` is not installed.
            UnknownDataset: nothing is found, and no dataset has this model, component or layer.
        """
        params: dict[str, object] = {"model": model, "component": component, "layer": layer, "min_score": min_score}
        params |= {"origin": origin, "explainer": explainer, "score_kind": score_kind, "k": k}
        if how == "meaning":
            params["embedding"] = self._embed(text)
            found = "nearest_explanations($embedding, k := {k}, " + _FILTERS + ")"
        else:
            params |= {"text": text, "how": how}
            found = "search_explanations($text, how := $how, k := {k}, " + _FILTERS + ")"
        if where is None:
            result = self.sql("FROM " + found.format(k="$k"), params)
        else:
            if fault := find_fault(self.sql, where):
                raise QueryError(f"the condition {where!r}: {fault}: give one as \"top_token <> ' king'\"")
            # The predicate stands on lines of its own, so that a comment in it ends with it.
            result = self.sql(
                "SELECT row_number() OVER (ORDER BY f.rank) - 1 AS rank, f.* EXCLUDE (rank) "
                f"FROM {found.format(k='NULL')} AS f "
                "LEFT JOIN units USING (model, component, layer, unit, unit_id) "
                f"WHERE (\n{where}\n) ORDER BY rank LIMIT $k",
                params,
            )
        if result.is_empty():
            require_known(self.sql, model, component, layer)
        return result

    def _embed(self, text: str) -> list[float]:
        """Embed a question.

        Raises:
            QueryError: the lake has no embedding to compare it with.
            MissingEmbedder: the extra `semantic` is not installed.
        """
        if self.sql("FROM explanation_vectors SELECT explanation_hash LIMIT 1").is_empty():
            raise QueryError("no explanation of this lake has an embedding: make them with 'warehouse explain embed'")
        embedding: list[float] = self._embedder.embed([text])[0].tolist()
        return embedding
