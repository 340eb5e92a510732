# Everything a developer types. The work is in .ci/, so that CI runs the same lines.
export CGO_ENABLED = 0
GO      ?= go
PREFIX  ?= /usr/local
# Version stamps come from git, if git is there and trusts this clone.
VCS     := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)
FUZZ    ?= 30s

build:
	$(GO) build -trimpath -buildvcs=$(VCS) -o nsferry ./cmd/nsferry
check:
	bash .ci/check
test:
	bash .ci/test
test-quick:
	$(GO) test -trimpath -short ./...
demo: build
	sh .ci/demo ./nsferry
bench: build
	sh .ci/bench ./nsferry
e2e e2e-isar bench-e2e: build
	sh .ci/$@ ./nsferry $(ISAR)
soak:
	SOAK=1 bash .ci/test -run 'Soak|Crash' -timeout 4h
fuzz:
	bash .ci/fuzz $(FUZZ)
cover:
	mkdir -p build
	$(GO) test -trimpath -coverpkg=./... -coverprofile=build/cover.out ./...
	$(GO) tool cover -func=build/cover.out | tail -1
install: build
	install -D -m 0755 nsferry $(DESTDIR)$(PREFIX)/bin/nsferry
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	./nsferry man >$(DESTDIR)$(PREFIX)/share/man/man1/nsferry.1
	./nsferry completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/nsferry
clean:
	rm -rf nsferry build

.PHONY: build check test test-quick demo bench e2e e2e-isar bench-e2e soak fuzz cover install clean
