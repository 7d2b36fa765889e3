-- One row is: no row; the words of a text, in order
-- From: the text
CREATE MACRO split_words(text, letters := '[\p{L}\p{N}]') AS
  regexp_extract_all(lower(strip_accents(text)), letters || '+');

COMMENT ON MACRO split_words IS 'The words of a text: runs of letters and digits, in lower case and without accents. So an apostrophe or a hyphen parts two words. letters is the expression of RE2 for one of their characters: that of all letters takes a millisecond to compile.';
