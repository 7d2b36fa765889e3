-- One row is: a unit that is active on one token, nearly alone
-- From: unit_selectivity
CREATE VIEW one_token_units AS
SELECT
  CAST(s.model AS VARCHAR) AS model,
  CAST(s.component AS VARCHAR) AS component,
  CAST(s.layer AS INTEGER) AS layer,
  s.unit,
  concat_ws('/', s.model, s.component, s.layer, s.unit) AS unit_id,
  s.top_token,
  s.top_token_share,
  s.n_tokens,
  s.top_token_n,
  s.top_token_n_active,
  s.top_token_n_active / s.top_token_n AS active_part,
  active_part < 0.9 AS is_in_context
FROM unit_selectivity AS s
WHERE s.top_token_share >= 0.95;

COMMENT ON VIEW one_token_units IS 'Units with 95 % or more of their positive activation on one token. Where they are active on fewer than 90 % of its occurrences, the context decides too (is_in_context). Over the records of all sections, so that strong contexts are over-represented.';
