-- One row is: a match in a record inside which the record's unit is active, strongest first
-- From: context_excerpts
CREATE MACRO contexts(
  pattern, how := 'phrase', k := 20, model := NULL, component := NULL, layer := NULL, around := 10
) AS TABLE
SELECT
  e.rank,
  e.model,
  e.component,
  e.layer,
  e.unit,
  e.unit_id,
  e.activation,
  e.section,
  e.quantile,
  e.record_rank,
  e.first_position,
  e.last_position,
  e.position,
  e.tokens[e.position - e.excerpt_position + 1] AS token,
  array_to_string(e.tokens[:e.first_position - e.excerpt_position], '') AS before,
  array_to_string(
    e.tokens[e.first_position - e.excerpt_position + 1:e.last_position - e.excerpt_position + 1], ''
  ) AS matched,
  array_to_string(e.tokens[e.last_position - e.excerpt_position + 2:], '') AS after
FROM context_excerpts(
  pattern, how := how, k := k, model := model, component := component, layer := layer, around := around
) AS e
ORDER BY e.rank;

COMMENT ON MACRO TABLE contexts IS 'The k strongest activations inside a phrase, substring or regular expression (see context_matches), over the records of datasets per token (attention heads and latents by token pair are not searched: an activation of theirs belongs to two places; top_units_by_pair is their question): each record and match once, ranked from 0 by the strongest activation between first_position and last_position, with the tokens around. A unit that is not active (> 0) inside is not listed. Equal ones stand in the order of model, component, layer, unit, section and rank.';
