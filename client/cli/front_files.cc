#include "client/cli/front_files.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/cli/tokens.h"

namespace backboned::cli {
namespace {

using Json = nlohmann::ordered_json;

// Words in @s are replaced.
constexpr char kEnvoyYaml[] =
    R"yaml(# Made by `backbonectl front`, which writes it anew.
node: {id: backboned, cluster: backboned}
admin: {address: {pipe: {path: @admin@, mode: 384}}}  # 0600
overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: @connections@
static_resources:
  listeners:
  - name: front
    address: {socket_address: {address: @host@, port_value: @port@}}
    per_connection_buffer_limit_bytes: 1048576
    filter_chains:
    - transport_socket_connect_timeout: 10s  # A handshake that does not end.
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: false  # Or a token.
          common_tls_context:
            alpn_protocols: @alpn@
            tls_params: {tls_minimum_protocol_version: TLSv1_2}
            # Read again when anything of the folder is renamed: a file written by
            # `backbonectl front`, or the link of a mounted Secret.
            tls_certificate_sds_secret_configs:
            - {name: server, sds_config: {path_config_source: {path: @certificate@, watched_directory: {path: @folder@}}}}
@clients@      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          codec_type: @codec@
          use_remote_address: true
          internal_address_config: {unix_sockets: false}  # Nobody's x-envoy-... counts.
          generate_request_id: false
          max_request_headers_kb: 4  # Less than the server's 8 KiB.
          request_headers_timeout: 10s
          stream_idle_timeout: 0s  # The server has --stall-timeout.
          common_http_protocol_options:
            idle_timeout: 3600s
            max_headers_count: 48
            headers_with_underscores_action: REJECT_REQUEST
          http2_protocol_options:
            max_concurrent_streams: 64
            initial_stream_window_size: 4194304
            initial_connection_window_size: 16777216
            hpack_table_size: 4096
            connection_keepalive: {interval: 30s, timeout: 10s}
          access_log:
          - name: log
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format:
                text_format_source:
                  inline_string: "%START_TIME% %DOWNSTREAM_REMOTE_ADDRESS% %REQ(backboned-principal)% %REQ(:PATH)% %RESPONSE_CODE% %GRPC_STATUS% %RESPONSE_CODE_DETAILS% %DURATION% ms\n"
          http_filters:
          - name: strip  # First: the words of a client about itself.
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
              mutations:
                request_mutations:
                - remove: backboned-principal
                - remove: backboned-token-serial
                - remove: backboned-token-expires
                - remove: x-forwarded-client-cert
          - name: tokens  # A token's user; a wrong token is refused.
            config_discovery:
              config_source: {path_config_source: {path: @tokens@, watched_directory: {path: @folder@}}}
              type_urls: [type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication]
          - name: certificates  # Else the one DNS name of the client's certificate.
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
              mutations:
                request_mutations:
                - append: {header: {key: backboned-principal, value: "%DOWNSTREAM_PEER_DNS_SAN%"}, append_action: ADD_IF_ABSENT}
                - append: {header: {key: backboned-token-expires, value: "%DOWNSTREAM_PEER_CERT_V_END(%s)%"}, append_action: ADD_IF_ABSENT}
          - name: somebody  # Neither: refused.
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:
                  somebody:
                    permissions: [{any: true}]
                    principals: [{header: {name: backboned-principal, string_match: {safe_regex: {regex: "[a-z0-9][a-z0-9_.-]*"}}}}]
@json@          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route:
                  cluster: backboned
                  timeout: 0s  # The deadline of gRPC counts.
                  max_stream_duration: {grpc_timeout_header_max: 0s}
  clusters:
  - name: backboned
    type: STATIC
    connect_timeout: 2s
    per_connection_buffer_limit_bytes: 1048576
    # No two clients share the state of a connection, or its end.
    connection_pool_per_downstream_connection: true
    circuit_breakers: {thresholds: [{max_connections: @connections@, max_requests: 4096}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options: {initial_stream_window_size: 4194304, initial_connection_window_size: 16777216}
    load_assignment:
      cluster_name: backboned
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: @socket@}}}}]}]
)yaml";

constexpr char kClients[] =
    R"yaml(            validation_context_sds_secret_config:
              {name: clients, sds_config: {path_config_source: {path: @path@, watched_directory: {path: @folder@}}}}
)yaml";

constexpr char kJson[] =
    R"yaml(          - name: json  # POST /backboned.v1.BackboneService/Extract
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder
              proto_descriptor: @path@
              services: [backboned.v1.BackboneService, backboned.v1.InstanceService]
              auto_mapping: true
              convert_grpc_status: true
              max_request_body_size: 6291456
              max_response_body_size: 6291456
              request_validation_options: {reject_unknown_method: true}
)yaml";

std::string Quoted(const std::string& text) { return Json(text).dump(); }

// Returns a file of one resource of Envoy's.
std::string Resource(const std::string& type, const std::string& name,
                     const std::string& key, const Json& value) {
  const Json resource = {{"@type", "type.googleapis.com/envoy." + type},
                         {"name", name},
                         {key, value}};
  return Json({{"resources", Json::array({resource})}}).dump(2) + "\n";
}

Json Inline(const std::string& text) { return {{"inline_string", text}}; }

constexpr char kSecret[] = "extensions.transport_sockets.tls.v3.Secret";

}  // namespace

std::string EnvoyYaml(const FrontConfig& config) {
  const auto path = [&config](const char* name) {
    return Quoted(absl::StrCat(config.folder, "/", name));
  };
  const std::string clients =
      config.certificates
          ? absl::StrReplaceAll(kClients, {{"@path@", path("clients.json")},
                                           {"@folder@", Quoted(config.folder)}})
          : "";
  const std::string json =
      config.json
          ? absl::StrReplaceAll(kJson, {{"@path@", path("contract.pb")}})
          : "";
  return absl::StrReplaceAll(
      kEnvoyYaml, {{"@admin@", Quoted(config.admin)},
                   {"@alpn@", config.json ? "[h2, http/1.1]" : "[h2]"},
                   {"@certificate@", path("certificate.json")},
                   {"@clients@", clients},
                   {"@codec@", config.json ? "AUTO" : "HTTP2"},
                   {"@connections@", absl::StrCat(config.max_connections)},
                   {"@folder@", Quoted(config.folder)},
                   {"@host@", Quoted(config.host)},
                   {"@json@", json},
                   {"@port@", absl::StrCat(config.port)},
                   {"@socket@", Quoted(config.socket)},
                   {"@tokens@", path("tokens.json")}});
}

std::string CertificateJson(const std::string& chain, const std::string& key) {
  return Resource(
      kSecret, "server", "tls_certificate",
      {{"certificate_chain", Inline(chain)}, {"private_key", Inline(key)}});
}

std::string ClientsJson(const std::string& cas, const std::string& crl) {
  Json context = {{"trusted_ca", Inline(cas)}};
  if (!crl.empty()) context["crl"] = Inline(crl);
  return Resource(kSecret, "clients", "validation_context", context);
}

std::string TokensJson(const std::string& key_set) {
  const auto header = [](const char* name, const char* claim) {
    return Json{{"header_name", name}, {"claim_name", claim}};
  };
  const Json provider = {
      {"issuer", kIssuer},
      {"audiences", {kIssuer}},
      {"from_headers",
       Json::array({{{"name", "authorization"}, {"value_prefix", "Bearer "}}})},
      {"forward", false},
      {"require_expiration", true},
      {"clock_skew_seconds", 1},
      {"jwt_cache_config", {{"jwt_cache_size", 1000}}},
      {"local_jwks", Inline(key_set)},
      {"claim_to_headers",
       Json::array({header("backboned-principal", "sub"),
                    header("backboned-token-serial", "serial"),
                    header("backboned-token-expires", "exp")})}};
  const Json any = Json::array(
      {{{"provider_name", kIssuer}}, {{"allow_missing", Json::object()}}});
  const Json rule = {{"match", {{"prefix", "/"}}},
                     {"requires", {{"requires_any", {{"requirements", any}}}}}};
  return Resource("config.core.v3.TypedExtensionConfig", "tokens",
                  "typed_config",
                  {{"@type",
                    "type.googleapis.com/envoy.extensions.filters.http."
                    "jwt_authn.v3.JwtAuthentication"},
                   {"providers", {{kIssuer, provider}}},
                   {"rules", Json::array({rule})}});
}

}  // namespace backboned::cli
