-- One row is: a unit whose explanations are searched by other terms than they have
-- From: explanation_texts, explanation_terms, explanation_vocabulary, explanations, split_words, word_stem
-- Holds: the tables of search have each explanation with its score, and the stems of its words with their counts
WITH words AS (
  SELECT
    e.model,
    e.component,
    e.layer,
    e.unit,
    e.dataset,
    e.rank,
    unnest(split_words(e.explanation)) AS word
  FROM explanations AS e
),
stems AS (
  SELECT
    d.word,
    word_stem(d.word) AS term
  FROM (SELECT DISTINCT word FROM words) AS d
),
stored_terms AS (
  SELECT
    w.model,
    w.component,
    w.layer,
    w.unit,
    w.dataset,
    w.rank,
    s.term,
    count(*) AS n_in_text
  FROM words AS w
  INNER JOIN stems AS s USING (word)
  GROUP BY ALL
),
stored AS (
  SELECT
    model,
    component,
    layer,
    unit,
    sum(CAST(hash(dataset, rank, term, n_in_text) AS HUGEINT)) AS digest
  FROM stored_terms
  GROUP BY ALL
  UNION ALL
  SELECT
    model,
    component,
    layer,
    unit,
    sum(CAST(hash(dataset, rank, explanation, explainer, score, score_kind, origin, created_at) AS HUGEINT)) AS digest
  FROM explanations
  GROUP BY ALL
),
indexed AS (
  SELECT
    t.model,
    t.component,
    CAST(t.layer AS INTEGER) AS layer,
    t.unit,
    sum(CAST(hash(t.dataset, t.rank, v.term, CAST(r.n_in_text AS BIGINT)) AS HUGEINT)) AS digest
  FROM explanation_texts AS t
  INNER JOIN explanation_terms AS r USING (explanation_number, n_words)
  INNER JOIN explanation_vocabulary AS v USING (term_number)
  GROUP BY ALL
  UNION ALL
  SELECT
    model,
    component,
    CAST(layer AS INTEGER) AS layer,
    unit,
    sum(CAST(hash(dataset, rank, explanation, explainer, score, score_kind, origin, created_at) AS HUGEINT)) AS digest
  FROM explanation_texts
  GROUP BY ALL
)
SELECT
  model,
  component,
  layer,
  unit,
  i.digest AS indexed,
  s.digest AS stored
FROM (SELECT model, component, layer, unit, list(digest ORDER BY digest) AS digest FROM indexed GROUP BY ALL) AS i
FULL JOIN (SELECT model, component, layer, unit, list(digest ORDER BY digest) AS digest FROM stored GROUP BY ALL) AS s
  USING (model, component, layer, unit)
WHERE i.digest IS DISTINCT FROM s.digest;
