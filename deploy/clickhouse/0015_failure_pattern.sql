-- The rule of 0009 (its steps are told there), changed in three places: an SQLSTATE in brackets and a status behind `response:` are part
-- of the error and kept, so that different errors no longer share a group; and a day of a month is a value without a year, too, so that
-- one error is no longer parted by months. It holds for what is written from now on; older rows keep their pattern.
ALTER TABLE tool_executions MODIFY COLUMN failure_pattern String MATERIALIZED if(status != 'failed', '',
    arrayMap(whole -> if(lengthUTF8(whole) <= 1000, whole,
        concat(substringUTF8(whole, 1, 980), '... ', lower(hex(sipHash64(whole))))),
    arrayMap(said -> concat(
        if(error_type = '' OR position(said, error_type) > 0, '', error_type),
        if(error_type = '' OR position(said, error_type) > 0 OR error_code = '' OR position(said, error_code) > 0, '', ' '),
        if(error_code = '' OR position(said, error_code) > 0, '', error_code),
        if((error_type = '' OR position(said, error_type) > 0) AND (error_code = '' OR position(said, error_code) > 0), '', ': '),
        if(said = '<*>' AND match(if(error_message != '', error_message, message), '^[A-Za-z_.]+[0-9]{1,2}[A-Za-z_.]+$'),
            if(error_message != '', error_message, message), said)),
    [translate(
    replaceAll(
    replaceRegexpAll(
    replaceRegexpAll(
    arrayMap(text -> multiIf(
        match(text, '[{,]\\s*"[\\w.-]+"\\s*:'), translate(text, '"', '\x03'),
        match(text, '[{,]\\s*\'[\\w.-]+\'\\s*:'), translate(text, '"\'', '\x03\x04'),
        text), [
    replaceAll(
    replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(replaceAll(
    replaceRegexpAll(
    replaceRegexpAll(
    trimBoth(replaceRegexpAll(multiIf(status != 'failed', '', error_message != '', error_message, message), '[\\x00-\\x1f]+ *|  +', ' ')),
        concat('(\\b(?:',
            '(?i:(?:(?:error|status|response|http|exit|return|reason|result|err|sub|api)[ _-]?code|sqlstate|errno|status)["\']?[ :=(#\\[]{1,3}["\']?)-?',
            '|(?:\\w*(?i:error|exception)|(?i:fault)) [(#]?-?',
            '|(?i:with) (?i:code)[ :=]{1,2}-?',
            '|(?i:http)(?:/[12](?:\\.[01])?)?[ :]{1,2}',
            '|AADSTS|ORA-|ERR_?|PGRST',
            '|(?i:oauth|base|sha-?|utf-?))',
            '|["\'({,] ?(?i:code)["\']?[ :=]{1,3}["\']?-?',
            ')([0-9])([0-9]?)([0-9]?)([0-9]?)([0-9]?)([0-9]?)\\b'),
        '\\1\x01\\2\x01\\3\x01\\4\x01\\5\x01\\6\x01\\7'),
        concat('(^|[(\\[\'"]|\\b(?i:returned|responded with|response:?|received|got|error:|status:) )([45])([0-9])([0-9])',
            '($|[:\x3b)\\]"\'}{|]|[,.](?: |$)| [-{(]| (?i:client|server|bad|unauthori[sz]ed|payment|forbidden|not found|method|conflict|gone',
            '|unprocessable|too many|internal|service|gateway|error)\\b)',
            '|\\b([45])([0-9])([0-9])( (?:Client Error|Server Error|Bad Request|Unauthorized|Payment Required|Forbidden|Not Found',
            '|Method Not|Conflict|Gone|Unprocessable|Too Many|Internal Server|Bad Gateway|Service Un|Gateway Time))'),
        '\\1\x01\\2\x01\\3\x01\\4\x01\\6\x01\\7\x01\\8\\5\\9'),
        '\x010', '\x0e'), '\x011', '\x0f'), '\x012', '\x10'), '\x013', '\x11'), '\x014', '\x12'),
        '\x015', '\x13'), '\x016', '\x14'), '\x017', '\x15'), '\x018', '\x16'), '\x019', '\x17'),
        '\x01', '')
    ])[1],
        concat(
            '\\B"[^"\\s\x0e-\x17]+(?: [^"\\s\x0e-\x17]+(?: [^"\\s\x0e-\x17]+)?)?"\\B|\\B\'[^\'\\s\x0e-\x17]+(?: [^\'\\s\x0e-\x17]+(?: [^\'\\s\x0e-\x17]+)?)?\'\\B',
            '|\\B`[^`\\s\x0e-\x17]+(?: [^`\\s\x0e-\x17]+(?: [^`\\s\x0e-\x17]+)?)?`\\B|“[^”\\s\x0e-\x17]+(?: [^”\\s\x0e-\x17]+(?: [^”\\s\x0e-\x17]+)?)?”',
            '|\\\\["\x03][^"\x03\\\\]+\\\\["\x03]',
            '|\\b[A-Za-z][A-Za-z0-9+.-]+://[^\\s"\'\x03\x04<>)\\]}]*[^\\s"\'\x03\x04<>)\\]}.,\x3b:!?]',
            '|[A-Za-z0-9_.+%-]+@[A-Za-z0-9_-]+(?:\\.[A-Za-z0-9_-]+)+',
            '|(?:\\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?\\b',
            '(?:[0-9][0-9]? (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*',
            '|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* [0-9][0-9]?)',
            '(?:,? [0-9]+(?:,? [0-9:.]+)?(?: (?:GMT|UTC|Z))?(?: ?[+-][0-9:]+)?)?\\b',
            '|\\B/[\\w.%@~+:?=&#-]+(?:/[\\w.%@~+:?=&#-]*)*|\\b[A-Za-z]:\\\\[^\\s"\'\x03\x04<>|]*[^\\s"\'\x03\x04<>|)\\]}.,\x3b:!?]|\\b[\\w.-]+(?:/[\\w.-]+)+\\.[A-Za-z]\\w*\\b',
            '|(?:\\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?(?:\\B[-+])?\\b[\\w-]*[0-9][\\w-]*(?:[.:,+/][\\w-]*[0-9][\\w-]*)*',
            '|\\b[A-Fa-f]{8,}\\b|\\b[a-z]+_[\\w-]*[a-z][\\w-]*[A-Z][\\w-]*|\\b[a-z]+_[\\w-]*[A-Z][\\w-]*[a-z][\\w-]*'),
        '\x02'),
        '\x02(?:(?:, ?|\\x3b ?| | and )?\x02)+', '\x02'),
        '\x02', '<*>'),
        '\x03\x04\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17', '"\'0123456789')
    ]))[1])
    CODEC(ZSTD(1));
