#include "server/admin/status_page.h"

#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/digest.h"

namespace backboned::admin {
namespace {

// Returns the source of a Content-Security-Policy that allows `text` alone.
std::string HashOf(std::string_view text) {
  return absl::StrCat("'sha256-", absl::Base64Escape(TextDigest(text)), "'");
}

}  // namespace

Page StatusPage() {
  return {
      .type = "text/html; charset=utf-8",
      .body = absl::StrReplaceAll(
          kPageHtml,
          {{"<style></style>", absl::StrCat("<style>", kPageStyle, "</style>")},
           {"<script></script>",
            absl::StrCat("<script>", kPageScript, "</script>")}}),
      .headers = {
          {"Content-Security-Policy",
           absl::StrCat("default-src 'none'; script-src ", HashOf(kPageScript),
                        "; style-src ", HashOf(kPageStyle),
                        "; connect-src 'self'; img-src data:; base-uri "
                        "'none'; form-action 'none'; frame-ancestors "
                        "'none'")},
          {"Referrer-Policy", "no-referrer"}}};
}

}  // namespace backboned::admin
