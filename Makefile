# One word a target; `make` alone lists them.
export CGO_ENABLED ?= 0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
LINT := .cache/golangci-lint

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

CARRIED := internal/engines

build: ## build ./locald
ifeq ($(shell go env GOOS),linux)
	@for program in engines maker; do \
		echo "go build ./cmd/$$program" && \
		go build -trimpath -ldflags '-s -w' -o $(CARRIED)/$$program.bin ./cmd/$$program && \
		sha256sum <$(CARRIED)/$$program.bin | cut -c 1-16 >$(CARRIED)/$$program.sum || exit 1; \
	done
	go build -trimpath -tags carried -ldflags '$(LDFLAGS)' -o locald ./cmd/locald
else
	go build -trimpath -ldflags '$(LDFLAGS)' -o locald ./cmd/locald
endif

demo: build ## start examples/shop and print its page's row count
	@hack/demo

test: ## everything, with real engines and databases, under the race detector
	@hack/test

check: ## vet, lint, doors, generated files, macOS; about a minute once the linter is built
	go vet ./...
	GOOS=darwin go vet ./...
	go test ./internal/layout
	hack/verify-references
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory guard

guard: build ## counts that do not depend on the machine, against those that were accepted
ifeq ($(shell go env GOOS),linux)
	go run ./hack/guard
endif

lint: $(LINT) ## the linter alone
	$(LINT) run ./...

$(LINT): hack/tools/go.mod
	@mkdir -p $(@D)
	cd hack/tools && go build -o ../../$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

fmt: $(LINT) ## format what is not
	$(LINT) fmt ./...

golden: ## write the golden files anew; review with git diff
	go test ./supervisor ./restore ./ipc ./internal/config ./internal/env ./internal/postgres ./internal/cli -update
	go test ./internal/manual -update

soak: ## every cell of the large tests, then faults at random: make soak D=8h
	@hack/soak $(D)

promises: ## every cell of every table, and docs/promises.md from it; hours
	@hack/prove

BENCH := .cache/bench

# BENCH_COMMAND is what the page says was typed.
bench: build ## beside peers and floors, for half an hour a round; ROUNDS=3, ONLY=A,C (rows), QUICK=1 (8 minutes)
	@bench/peers.sh $(BENCH)
	@BENCH_COMMAND="make bench$(if $(QUICK), QUICK=1)$(if $(ROUNDS), ROUNDS=$(ROUNDS))$(if $(ONLY), ONLY=$(ONLY))" \
		python3 bench/bench.py run --fresh --bindir $(BENCH) --bin locald=$(CURDIR)/locald --rounds $(or $(ROUNDS),1) \
		$(if $(QUICK),--quick) $(if $(ONLY),--rows $(ONLY)) --out $(BENCH)/results.jsonl
	@python3 bench/bench.py page --out $(if $(ONLY),$(BENCH)/performance.md,docs/performance.md) $(BENCH)/results.jsonl

bench-go: ## the inner rooms, for benchstat: make bench-go >new; COUNT=10, ROOMS=./internal/logs
	@go test -run '^$$' -bench . -benchmem -count $(or $(COUNT),1) -timeout 1h $(or $(ROOMS),./ipc ./supervisor ./internal/config ./internal/keeper ./internal/logs ./internal/state)

fuzz: ## every fuzz target for a minute; D=10m for longer
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do \
		sed -n 's/^func \(Fuzz[A-Za-z]*\)(.*/\1/p' $$file | while read -r target; do \
			go test ./$$(dirname $$file) -run '^$$' -fuzz "^$$target$$" -fuzztime $${D:-1m} || exit 1; \
		done || exit 1; \
	done

clean: ## remove what was built
	rm -rf locald .cache $(CARRIED)/*.bin $(CARRIED)/*.sum

.PHONY: help build demo test check guard lint fmt golden soak promises bench bench-go fuzz clean
