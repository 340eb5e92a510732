# Reads `go test -v` of many packages; prints the verdict of each package, what its failed tests said, and which tests
# were skipped and why. A skip for "root tier", "user tier" or "soak tier" is another run's business and not counted. Appends
# "TIER PASSED FAILED SKIPPED" to the file `counts`.
/^=== (RUN|PAUSE|CONT|NAME) / { test = $3; next }
/^[ \t]*--- PASS: / { passed++; ended(); next }
/^[ \t]*--- SKIP: / {
    if (why[$3] !~ /: (root|user|soak) tier/) skip[++skipped] = $3 ": " why[$3]
    ended()
    next
}
/^[ \t]*--- FAIL: / { failed++; any = bad[$3] = 1; keep(""); ended(); next }
/^(ok  |\?   )\t/ { print; fflush(); forget(); next }
/^FAIL\t/ { print_failure(); next }
/^(PASS|FAIL)$/ { next }
/^[ \t]+[^ \t]+\.go:[0-9]+: / { why[test] = $0; sub(/^[ \t]+/, "", why[test]) }
{ keep(test) }
END {
    if (n > 0) print_failure() # it ended in the middle of a package
    for (i = 1; i <= skipped; i++) print "skipped " skip[i]
    print tier, passed + 0, failed + 0, skipped + 0 >>counts
}

# keep stores a line that the given test said, "" for nobody in particular.
function keep(who) { line[++n] = $0; owner[n] = who }

# ended: what follows the verdict of a whole test is nobody's.
function ended() { if ($0 ~ /^---/) test = "" }

function forget() {
    n = any = 0
    test = ""
    delete bad
    delete why
}

# print_failure prints what failed tests and nobody in particular said. A package that failed without a failed test
# (panic, does not compile, timeout) counts as one failure.
function print_failure(   i) {
    for (i = 1; i <= n; i++) if (owner[i] == "" || owner[i] in bad || !any) print line[i]
    print
    fflush()
    if (!any) failed++
    forget()
}
