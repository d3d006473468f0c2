# What a contributor needs: `make run` and `make test`. `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

export PATH := $(CURDIR)/.tools/bin:$(PATH)

# Besides the one that the tests run on.
PLATFORMS := darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
GENERATED := '*.pb.go' web/dist

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## start a server with everything on this machine
	go run ./cmd/daybook serve

.PHONY: build
build: ## build bin/daybook
	CGO_ENABLED=0 go build -trimpath -o bin/daybook ./cmd/daybook

.PHONY: test
test: setup check-gen lint vuln cross test-web test-clients test-go soak ## install what is missing, then check and test everything

.PHONY: test-go
test-go: ## all Go tests; with the race detector, but for those of whole systems, whose processes it slows down
	CGO_ENABLED=1 go test -race -timeout 15m $$(go list ./... | grep -v '/daybook/test')
	go test -timeout 15m ./test/...

.PHONY: soak
soak: ## journals against a model, at random, without and with kill -9 (SOAK says how long each)
	go test -count=1 -run 'TestSoak|TestKill' -timeout 24h ./journal/broker -soak $(or $(SOAK),30s)

.PHONY: test-large
test-large: ## whole-system tests at full size
	DAYBOOK_TEST_LARGE=1 go test -count=1 -timeout 60m -v ./test/...

.PHONY: test-web
test-web: setup-web ## tests of the viewer
	npm --prefix web test

.PHONY: test-clients
test-clients: setup-packages ## tests of the client library for Python
	cd clients/python && python3 -W error -m unittest

.PHONY: bench
bench: ## measure and print one table
	go run ./bench

.PHONY: lint
lint: setup-go ## formatting, linters, import arrows
	@bad=$$(git ls-files -co --exclude-standard '*.go' | grep -v '\.pb\.go$$' | while read -r f; do [ ! -e "$$f" ] || echo "$$f"; done | xargs gofumpt -l); \
	if [ -n "$$bad" ]; then echo "gofumpt -w would change:"; echo "$$bad"; exit 1; fi
	golangci-lint run

.PHONY: gen
gen: setup-go setup-web ## write generated code and the viewer's assets anew
	buf generate
	npm --prefix web run build

.PHONY: check-gen
check-gen: gen ## fail if generated files differ from what is committed
	@git diff --exit-code --stat -- $(GENERATED)
	@new=$$(git ls-files -o --exclude-standard -- $(GENERATED)); \
	if [ -n "$$new" ]; then echo "generated and not committed:"; echo "$$new"; exit 1; fi

.PHONY: vuln
vuln: setup-go ## look for known vulnerabilities
	tools/vulncheck

# Nothing of it runs, so nothing is optimized: that takes two thirds of the time.
.PHONY: cross
cross: ## compile for every platform, and the tests for the one that differs most
	@for p in $(PLATFORMS); do \
		echo "build $$p"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 go build -gcflags='all=-N -l' -o /dev/null ./cmd/daybook; \
	done
	@for os in windows; do \
		echo "vet $$os"; \
		GOOS=$$os GOARCH=amd64 CGO_ENABLED=0 go vet -gcflags='all=-N -l' ./...; \
	done

.PHONY: setup setup-packages setup-go setup-web setup-azure
setup: setup-packages setup-go setup-web setup-azure ## install what the other targets need and this machine lacks

setup-packages:
	@tools/setup packages

setup-go:
	@tools/setup go

setup-web: setup-packages
	@tools/setup web

setup-azure: setup-packages
	@tools/setup azure
