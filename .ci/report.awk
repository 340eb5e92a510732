# Reads `go test -v` of many packages; prints the verdict of each package, what a failed one said, and the names of what
# was skipped. Appends "TIER PASSED FAILED SKIPPED" to the file `counts`.
{ lines[++n] = $0 }
/^[ \t]*--- PASS: / { passed++ }
/^[ \t]*--- FAIL: / { failed++ }
/^[ \t]*--- SKIP: / { skipped++; skip[skipped] = $3 ": " why }
/^[ \t]+[^ \t]+_test\.go:[0-9]+: / { why = $0; sub(/^[ \t]+/, "", why) }
/^ok  \t/ || /^\?   \t/ { print; fflush(); n = 0 }
/^FAIL\t/ { flush_failure() }
/^FAIL$/ { }
END {
    if (n > 0 && !verdicts_only()) flush_failure()
    for (i = 1; i <= skipped; i++) print "skipped " skip[i]
    print tier, passed + 0, failed + broken + 0, skipped + 0 >>counts
}
# A failed package: everything but the noise of tests that passed. A package without a failed test (panic, does not
# compile, timeout) counts as one failure.
function flush_failure(   i, any) {
    for (i = 1; i <= n; i++) {
        if (lines[i] ~ /^[ \t]*--- FAIL: /) any = 1
        if (lines[i] !~ /^[ \t]*(=== (RUN|PAUSE|CONT|NAME)|--- PASS:)/) print lines[i]
    }
    if (!any) broken++
    fflush()
    n = 0
}
function verdicts_only(   i) {
    for (i = 1; i <= n; i++) if (lines[i] != "FAIL" && lines[i] != "") return 0
    return 1
}
