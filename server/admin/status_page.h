// Holds the page on which people watch a server.

#ifndef BACKBONED_SERVER_ADMIN_STATUS_PAGE_H_
#define BACKBONED_SERVER_ADMIN_STATUS_PAGE_H_

#include "server/admin/http_server.h"

namespace backboned::admin {

// The files of server/admin/page/, which the build puts into the program.
extern const char kPageHtml[];
extern const char kPageStyle[];
extern const char kPageScript[];

// Returns the page: one file, which asks for /status.json and nothing else. Its
// header lets a browser run this very script, and none that a text might bring.
Page StatusPage();

}  // namespace backboned::admin

#endif  // BACKBONED_SERVER_ADMIN_STATUS_PAGE_H_
