# Targets and what they do: make, or make help.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
# The race detector needs a C compiler; without one the tests run without it.
RACE := $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)
# Programs carry the commit that they were built from, where it can be told.
VCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=$(VCS)
# One command builds the programs of several folders, which is faster than one after the other, and names them as
# their folders; users call most of them ambit-NAME.
define programs
	$(BUILD) -o bin/.built/ $1
	@cd bin/.built && for p in $(notdir $1); do case $$p in ambit | shop | demo) ln -f $$p ..;; *) ln -f $$p ../ambit-$$p;; esac; done
endef

PKG ?= ./...
KEEP ?=
UP ?=
RUN ?=
TEST ?=
VERSION ?=
IMAGES ?=
FUZZTIME ?= 30s
CHAOS ?= 10m
BENCH ?=

TOOL := $(GO) tool -modfile=tools/go.mod
LINTMOD := tools/lint/go.mod
CACHE := .cache
LINTER := $(CACHE)/golangci-lint

##@ Everyday

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*##/ {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the programs, and the example shop, into bin/
	$(call programs,$(wildcard ./cmd/*) ./examples/shop)

.PHONY: demo
demo: ## Show the mesh on this machine, step by step, with evidence (KEEP=1 leaves it running)
	$(call programs,./cmd/local ./cmd/local-controlplane ./cmd/ztunnel ./cmd/waypoint ./cmd/nodeagent ./examples/shop ./tests/demo)
	KEEP=$(KEEP) bin/demo

.PHONY: test
test: ## Run the tests, fuzz corpora included, without root too (PKG=./internal/hbone/... for some)
	@$(if $(RACE),,echo "no C compiler found: the tests run without the race detector" >&2)
	$(GO) test $(RACE) -timeout 45m $(PKG)

.PHONY: lint
lint: $(LINTER) ## Lint; builds the linter once, which takes minutes
	$(LINTER) run

.PHONY: fmt
fmt: $(LINTER) ## Format the Go files
	$(LINTER) fmt

$(LINTER): $(LINTMOD)
	$(GO) build -modfile=$(LINTMOD) -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: clean
clean: ## Remove what was built
	@test ! -d $(CACHE)/cluster/run || { echo "the cluster lives in $(CACHE): run make cluster-down first" >&2; exit 1; }
	rm -rf bin $(CACHE)

##@ Generated files

.PHONY: generate
generate: ## Write the generated files: protobuf, deep copies, CRDs, reference pages
	$(TOOL) buf generate
	$(TOOL) controller-gen object paths=./apis/mesh/... paths=./apis/gatewayx/...
	$(TOOL) controller-gen crd paths=./apis/mesh/... output:crd:dir=manifests/crds
	$(GO) run ./docs/internal/generate -o docs/reference

.PHONY: verify
verify: verify-source verify-generated ## Fail if generated files, formatting, modules or go vet complain

.PHONY: verify-source
verify-source: ## The cheap half of verify: gofmt, go vet, modules, reference pages
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "not formatted: run gofmt -w" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	$(GO) run ./docs/internal/generate -check docs/reference

.PHONY: verify-generated
verify-generated: ## The other half: protobuf, deep copies and CRDs; builds their generators once
	@rm -rf $(CACHE)/verify && mkdir -p $(CACHE)/verify/apis/mesh/v1alpha1 $(CACHE)/verify/apis/gatewayx $(CACHE)/verify/crds
	$(TOOL) buf lint
	$(TOOL) buf generate -o $(CACHE)/verify
	$(TOOL) controller-gen object paths=./apis/mesh/... output:object:dir=$(CACHE)/verify/apis/mesh/v1alpha1
	$(TOOL) controller-gen object paths=./apis/gatewayx/... output:object:dir=$(CACHE)/verify/apis/gatewayx
	$(TOOL) controller-gen crd paths=./apis/mesh/... output:crd:dir=$(CACHE)/verify/crds
	@for f in $$(cd $(CACHE)/verify && find apis -type f); do diff -u "$$f" "$(CACHE)/verify/$$f" || { echo "$$f is stale: run make generate" >&2; exit 1; }; done
	@for f in $$(git ls-files 'apis/*.pb.go' 'apis/*zz_generated*'); do test -f "$(CACHE)/verify/$$f" || { echo "$$f is generated from nothing: remove it" >&2; exit 1; }; done
	@diff -ru manifests/crds $(CACHE)/verify/crds || { echo "manifests/crds is stale: run make generate" >&2; exit 1; }

##@ Kubernetes (root; two nodes in namespaces of this machine)

CLUSTER := bin/cluster
.PHONY: bin/cluster

$(CLUSTER):
	$(GO) build -o $@ ./tests/cluster

.PHONY: cluster-build
cluster-build: $(CLUSTER) ## Build Kubernetes, etcd and CoreDNS into .cache/cluster, once: 6 to 25 minutes
	$(CLUSTER) build

.PHONY: cluster-check
cluster-check: $(CLUSTER) ## Say what keeps this machine from running a cluster, if anything
	@$(CLUSTER) check

.PHONY: cluster-up
cluster-up: $(CLUSTER) ## Bring up the cluster with the images of this tree: a minute once built (UP="--gateway-api standard --crds")
	$(CLUSTER) up $(UP)

.PHONY: cluster-down
cluster-down: $(CLUSTER) ## Take the cluster away, with everything in it
	$(CLUSTER) down

.PHONY: e2e
e2e: build cluster-up ## Run tests/e2e on the cluster, which is brought up if needed (RUN=TestBareCluster for one)
	$(GO) test -c -o bin/e2e.test ./tests/e2e
	cd tests/e2e && AMBIT_CLUSTER=$(CURDIR)/$(CLUSTER) $(CURDIR)/$(CLUSTER) in-net cp $(CURDIR)/bin/e2e.test -test.v -test.timeout 30m -test.run '$(RUN)'

# The suite v1.7 needs a newer Go, its own CRDs, and packages of a module that no proxy serves but which are in the suite v1.6.3.
SUITE_GO := $(if $(VERSION),GOTOOLCHAIN=go1.27.0 )$(GO)
SUITE_MOD := $(if $(VERSION),-modfile=v$(VERSION).mod)
SUITE_IMAGES := $(CACHE)/conformance-images/go.mod

$(SUITE_IMAGES):
	rm -rf $(@D) && mkdir -p $(@D)/echo-basic
	$(GO) -C tests/conformance mod download sigs.k8s.io/gateway-api/conformance
	from=$$($(GO) -C tests/conformance list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api/conformance)/echo-basic; \
	  cp -r $$from/grpcechoserver $$from/tcpserver $$from/udpechoserver $(@D)/echo-basic/; chmod -R u+w $(@D)
	printf 'module sigs.k8s.io/gateway-api-conformance-images\n\ngo 1.26.0\n' > $@

.PHONY: conformance
conformance: override UP += $(if $(VERSION),--gateway-api none)
conformance: cluster-up $(if $(VERSION),$(SUITE_IMAGES)) ## Run the Gateway API's conformance suite on the cluster and write the report (TEST=MeshPorts for one test, VERSION=1.7 for that suite)
	$(SUITE_GO) test -C tests/conformance $(SUITE_MOD) -c -o $(CURDIR)/bin/conformance.test .
	@# CRDs that only this version has would stay, and the other suite refuses a mixture: the cluster has to go down before it.
	$(if $(VERSION),$(CLUSTER) kubectl apply --server-side -k $$($(SUITE_GO) list -C tests/conformance $(SUITE_MOD) -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd/experimental)
	$(CLUSTER) kubectl wait --for=condition=Established crd --all --timeout=60s
	$(call programs,./cmd/ambit)
	$(CLUSTER) in-net cp $(CURDIR)/bin/ambit install --version dev
	@# What an earlier run is still deleting would be in the way.
	$(CLUSTER) kubectl wait --for=delete namespace -l gateway-conformance --timeout=120s
	cd tests/conformance && $(CURDIR)/$(CLUSTER) in-net cp $(CURDIR)/bin/conformance.test -test.v -test.timeout 60m -test.run '^TestConformance$$' \
	  $(if $(TEST),-run-test $(TEST),-report-output $(CURDIR)/tests/conformance/$(if $(VERSION),v$(VERSION)/)experimental-report.yaml)

##@ Now and then

.PHONY: images
images: ## Build the images for amd64 and arm64 with their SBOMs into bin/images: 2 minutes (IMAGES="-registry R -tag T -push")
	$(GO) build -C tools/images -o $(CURDIR)/bin/images-tool .
	bin/images-tool -f manifests/images.yaml -o bin/images $(IMAGES)

.PHONY: bench
bench: build ## Measure Ambit beside relays and the waypoint beside Envoy (BENCH="-only data" or "-only waypoint" for a part)
	$(BUILD) -o bin/bench ./tests/bench
	bin/bench run $(BENCH)

.PHONY: bench-controlplane
bench-controlplane: ## Measure the control plane with 10,000 pods on a real API server: 5 minutes (BENCH="-sizes 20:200" for less)
	$(GO) test -count=1 -timeout 60m -v -run '^TestBench$$' ./tests/bench/controlplane -args \
	  -sizes 100:1000,1000:10000 -ztunnels 50 -edits 300 -churn 20s -rest 20s $(BENCH)

.PHONY: chaos
chaos: ## Take parts of the mesh away for CHAOS (10m) under load (AMBIT_TEST_CHAOS_SEED=1 repeats the steps of a run)
	AMBIT_TEST_CHAOS=$(CHAOS) $(GO) test $(RACE) -count=1 -timeout 60m -v -run '^TestChaos$$' ./tests/netns

.PHONY: fuzz
fuzz: ## Fuzz every parser of outside bytes for FUZZTIME (30s) each
	@for f in $$(git ls-files '*_test.go'); do \
	  for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$f"); do \
	    echo "--- $$t in $$(dirname "$$f")"; \
	    $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$f")"; \
	  done; done

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in what the programs call (needs the vulnerability database)
	$(GO) tool -modfile=$(LINTMOD) govulncheck ./...
