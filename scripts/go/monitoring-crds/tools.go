//go:build tools

// Package tools names what scripts/tools.sh reads, so that go.mod and go.sum pin what it needs.
package tools

import _ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
