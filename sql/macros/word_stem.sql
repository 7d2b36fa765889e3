-- One row is: no row; what words of one stem share
-- From: the word
CREATE MACRO word_stem(word) AS CASE
  WHEN regexp_full_match(word, '[a-z]{3,}') THEN
    -- From the inside out: plural; -eed; -ed and -ing, in whose place a # stands; the end of what is before it; -y.
    regexp_replace(
      replace(
        regexp_replace(
          regexp_replace(
            regexp_replace(
              regexp_replace(
                regexp_replace(
                  regexp_replace(
                    regexp_replace(word, '(ss|i)es\z', '\1'),
                    '([^s])s\z',
                    '\1'
                  ),
                  '^(.*[aeiouy][^aeiouy].*)eed\z',
                  '\1ee'
                ),
                '^(.*[aeiouy].*[^e]|.*[aiouy])ed\z|^(.*[aeiouy].*)ing\z',
                '\1\2#'
              ),
              '(at|bl|iz)#\z',
              '\1e'
            ),
            '(b)b#\z|(d)d#\z|(f)f#\z|(g)g#\z|(m)m#\z|(n)n#\z|(p)p#\z|(r)r#\z|(t)t#\z',
            '\1\2\3\4\5\6\7\8\9'
          ),
          '^([^aeiouy]+[aeiouy][^aeiouywx])#\z',
          '\1e'
        ),
        '#',
        ''
      ),
      '(.[^aeiou])y\z',
      '\1i'
    )
  ELSE word
END;

COMMENT ON MACRO word_stem IS 'A word without its inflection, so that royalties finds royalty and creating finds created: plural, -ed, -ing and final y, after the first step of Porter''s stemmer with y as a vowel everywhere. Suffixes that make other words of a word stay: royalty does not find royal. Words of other letters than a to z, and of less than three, stay as they are.';
