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

bench-engines: build ## containers: builtin beside the engines of this machine, for minutes
	go run ./hack/testimages -load=false
	@mkdir -p .cache
	go run -tags carried ./hack/benchengines -out .cache/engines.jsonl

fuzz: ## every fuzz target for a minute; D=10m for longer
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do \
		sed -n 's/^func \(Fuzz[A-Za-z]*\)(.*/\1/p' $$file | while read -r target; do \
			go test ./$$(dirname $$file) -run '^$$' -fuzz "^$$target$$" -fuzztime $${D:-1m} || exit 1; \
		done || exit 1; \
	done

clean: ## remove what was built
	rm -rf locald .cache $(CARRIED)/*.bin $(CARRIED)/*.sum

.PHONY: help build demo test check lint fmt golden soak promises bench-engines fuzz clean
