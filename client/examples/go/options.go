package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// options are what the command line says; files that it does not name are empty.
type options struct {
	target, ca, certificate, key, tokenFile string
}

// parse reads the command line.
func parse(arguments []string) (options, error) {
	var parsed options
	flags := flag.NewFlagSet("example", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&parsed.ca, "ca", "", "")
	flags.StringVar(&parsed.certificate, "certificate", "", "")
	flags.StringVar(&parsed.key, "key", "", "")
	flags.StringVar(&parsed.tokenFile, "token-file", "", "")
	if err := flags.Parse(arguments); err != nil {
		return parsed, err
	}
	if flags.NArg() != 1 {
		return parsed, errors.New("one target is needed")
	}
	parsed.target = flags.Arg(0)
	return parsed, nil
}

// transport is TLS if there is a CA.
func (o options) transport() (credentials.TransportCredentials, error) {
	if o.ca == "" {
		return insecure.NewCredentials(), nil
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", o.ca)
	}
	if o.certificate != "" {
		own, err := tls.LoadX509KeyPair(o.certificate, o.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{own}
	}
	return credentials.NewTLS(config), nil
}

// withToken lets the token go with each call: through TLS, or to a Unix socket, since
// whoever reads it can use it.
func (o options) withToken(ctx context.Context) (context.Context, error) {
	if o.tokenFile == "" {
		return ctx, nil
	}
	if o.ca == "" && !strings.HasPrefix(o.target, "unix:") {
		return nil, errors.New("a token needs -ca, or a target unix:/path")
	}
	token, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return nil, err
	}
	bearer := "Bearer " + strings.TrimSpace(string(token))
	return metadata.AppendToOutgoingContext(ctx, "authorization", bearer), nil
}
