-- One row is: an explanation that matches, best first
-- From: explanation_texts, explanation_terms, explanation_vocabulary, split_words, word_stem
CREATE MACRO search_explanations(
  text, how := 'words', k := 20, model := NULL, component := NULL, layer := NULL, min_score := NULL, origin := NULL,
  explainer := NULL, score_kind := NULL
) AS TABLE
WITH totals AS (
  SELECT
    count(*) AS n_texts,
    sum(t.n_words) / count(*) AS mean_words
  FROM explanation_texts AS t
),
asked AS MATERIALIZED (
  SELECT DISTINCT
    v.term_number,
    ln(1 + (c.n_texts - v.n_explanations + 0.5) / (v.n_explanations + 0.5)) AS weight,
    c.mean_words
  FROM unnest(split_words(
    CASE WHEN how = 'words' THEN text ELSE '' END,
    letters := CASE WHEN strlen(text) = length(text) THEN '[a-z0-9]' ELSE '[\p{L}\p{N}]' END
  )) AS w(word)
  INNER JOIN explanation_vocabulary AS v ON v.term = word_stem(w.word)
  CROSS JOIN totals AS c
),
found AS (
  SELECT
    r.explanation_number,
    round(sum(a.weight * 2.2 * r.n_in_text / (r.n_in_text + 1.2 * (0.25 + 0.75 * r.n_words / a.mean_words))), 9)
      AS relevance
  FROM explanation_terms AS r
  INNER JOIN asked AS a USING (term_number)
  GROUP BY r.explanation_number
  UNION ALL
  SELECT
    t.explanation_number,
    NULL AS relevance
  FROM explanation_texts AS t
  WHERE CASE how
    WHEN 'regex' THEN regexp_matches(t.explanation, CASE WHEN how = 'regex' THEN text ELSE '' END)
    WHEN 'words' THEN false
    ELSE error('how must be words or regex')
  END
),
best AS (
  SELECT
    t.model,
    t.component,
    t.layer,
    t.unit,
    t.explanation,
    t.score,
    t.score_kind,
    t.explainer,
    t.origin,
    t.created_at,
    t.dataset,
    t.rank,
    f.relevance
  FROM found AS f
  INNER JOIN explanation_texts AS t USING (explanation_number)
  WHERE (model IS NULL OR t.model = model)
    AND (component IS NULL OR t.component = component)
    AND (layer IS NULL OR t.layer = layer)
    AND (min_score IS NULL OR t.score >= min_score)
    AND (origin IS NULL OR t.origin = origin)
    AND (explainer IS NULL OR t.explainer = explainer)
    AND (score_kind IS NULL OR t.score_kind = score_kind)
  ORDER BY
    f.relevance DESC,
    t.score DESC NULLS LAST,
    t.model,
    t.component,
    t.layer,
    t.unit,
    t.dataset,
    t.rank
  LIMIT k
)
SELECT
  row_number() OVER () - 1 AS rank,
  b.model,
  b.component,
  b.layer,
  b.unit,
  concat_ws('/', b.model, b.component, b.layer, b.unit) AS unit_id,
  b.relevance,
  b.explanation,
  b.score,
  b.score_kind,
  b.explainer,
  b.origin,
  b.created_at,
  b.dataset,
  b.rank AS explanation_rank
FROM best AS b;

COMMENT ON MACRO TABLE search_explanations IS 'The k explanations (all, with k := NULL) that have some of the words asked for, ranked from 0 by BM25 (k1 1.2, b 0.75; each word asked for counts once, however often it is said) over their stems (see split_words and word_stem); how much a word weighs follows from all explanations of the lake, so no filter changes relevance, which is rounded to nine places, as sums in several threads differ in the last. With how := ''regex'', those in which the regular expression of RE2 matches, by score. Equal ones stand by score, then in the order of model, component, layer, unit, dataset and rank. min_score leaves out explanations without a score.';
